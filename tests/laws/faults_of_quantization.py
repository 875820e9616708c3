"""Faults in the quantizers, in calibration and in stored images, and the law that must notice each."""

from __future__ import annotations

from laws.core import Fault
from smi import images, inversion, quantization, quantizers

FAULTS = [
    Fault(
        "zero point not a whole number",
        quantizers.ActivationQuantizer,
        "quantize",
        "levels.sub_(zero)",
        "levels.sub_(zero + 0.5)",
        "quantizing_twice_is_quantizing_once",
    ),
    Fault(
        "one level too many",
        quantizers,
        "quantize_weight",
        "highest, lowest = 2 ** (bits - 1) - 1,",
        "highest, lowest = 2 ** (bits - 1),",
        "quantized_weights_lie_on_their_channels_levels",
    ),
    Fault(
        "weights cut off instead of rounded",
        quantizers,
        "quantize_weight",
        "(flat / scale).round()",
        "(flat / scale).floor()",
        "a_weight_moves_by_half_a_step_at_most",
    ),
    Fault(
        "one scale for all channels",
        quantizers,
        "quantize_weight",
        "scale = (bound /",
        "scale = (bound.max().expand_as(bound) /",
        "a_channel_is_quantized_by_itself",
    ),
    Fault(
        "zero moves",
        quantizers,
        "quantize_weight",
        "(flat / scale).round()",
        "((flat / scale + 0.5).round() - 0.5)",
        "weights_keep_their_order_and_their_zero",
    ),
    Fault(
        "no zero point",
        quantizers.ActivationQuantizer,
        "grid",
        "(-(self.low / scale).round()).clamp(0, levels)",
        "torch.zeros_like(scale)",
        "an_activation_moves_by_half_a_step_at_most",
    ),
    Fault(
        "zero point rounded up",
        quantizers.ActivationQuantizer,
        "grid",
        "(-(self.low / scale).round())",
        "(1 + (-(self.low / scale)).floor())",
        "an_activation_moves_by_half_a_step_at_most",
    ),
    Fault(
        "values outside the range do not clip",
        quantizers.ActivationQuantizer,
        "quantize",
        ".round_().clamp_(0, 2**self.bits - 1)",
        ".round_()",
        "odd_activations_do_what_the_docstring_says",
    ),
    Fault(
        "twice as many levels",
        quantizers.ActivationQuantizer,
        "quantize",
        ".round_().clamp_(0, 2**self.bits - 1)",
        ".mul(2).round().div(2).clamp(0, 2**self.bits - 1)",
        "activations_take_few_values_in_order",
    ),
    Fault(
        "only the last batch counts",
        quantizers.ActivationQuantizer,
        "forward",
        "torch.minimum(self.low, low), torch.maximum(self.high, high)",
        "low, high",
        "the_range_is_the_least_and_greatest_seen",
    ),
    Fault(
        "calibration sees the whole image",
        quantization.QuantizedViT,
        "embed",
        "if self.whole_stem and kept is not None:",
        "if kept is not None:",
        "calibration_sees_kept_patches_only_and_leaves_the_model_alone",
    ),
    Fault(
        "weights of the model given are quantized",
        quantization.QuantizedViT,
        "__init__",
        "copy.deepcopy(model)",
        "model",
        "calibration_sees_kept_patches_only_and_leaves_the_model_alone",
    ),
    # images on disk
    Fault(
        "kept patches painted black",
        images.SyntheticImages,
        "masked",
        "self.mask().unsqueeze(2)",
        "(~self.mask()).unsqueeze(2)",
        "images_come_back_from_disk_bit_for_bit",
    ),
    Fault(
        "targets beyond the classes",
        inversion,
        "_assemble",
        "[batch.targets for batch",
        "[batch.targets + loop.model.classes for batch",
        "images_are_valid_and_named_by_valid_targets",
    ),
]

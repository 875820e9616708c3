"""k-bit fake quantization of weights and activations: the formulas, and the range that calibration finds.

Weights: per output channel, symmetric. Activations: per tensor, asymmetric, min-max over the calibration images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smi.checks import is_whole
from smi.errors import InvalidImages, InvalidSetting

BITS = range(2, 9)
FORMULAS = ("published", "slides")  # the authors' code, which is the default; the paper's slides
_EPSILON = torch.finfo(torch.float32).eps


def check_bits(name: str, bits: int) -> int:
    """`bits` itself; InvalidSetting unless it is a whole number from 2 to 8."""
    if not is_whole(bits) or bits not in BITS:
        raise InvalidSetting(f"{name} is {bits!r}; allowed: whole numbers {BITS[0]} to {BITS[-1]}")
    return bits


def check_formula(formula: str) -> str:
    """`formula` itself; InvalidSetting unless it is one of FORMULAS."""
    if formula not in FORMULAS:
        raise InvalidSetting(f"unknown quantizer formula {formula!r}; allowed: {', '.join(FORMULAS)}")
    return formula


def quantize_weight(weight: Tensor, bits: int, formula: str = "published") -> Tensor:
    """Per output channel (dimension 0), symmetric: clamp(round(w / scale), -2^(k-1), 2^(k-1) - 1) * scale.

    scale = max(-min, max) / ((2^k - 1) / 2), at least the float32 epsilon; zero maps to zero exactly, and the
    largest magnitude of a channel is off by up to scale where it clips at the positive end. Same shape and dtype.
    formula="slides" takes one range for the whole tensor, see `floor_to_range`.
    """
    check_bits("weight_bits", bits)
    if check_formula(formula) == "slides":
        values = weight.detach().float()
        return floor_to_range(values, *values.aminmax(), bits).to(weight.dtype)
    highest, lowest = 2 ** (bits - 1) - 1, -(2 ** (bits - 1))
    flat = weight.detach().float().flatten(1)
    bound = torch.maximum(-flat.amin(dim=1), flat.amax(dim=1))
    scale = (bound / ((highest - lowest) / 2)).clamp_min(_EPSILON).unsqueeze(1)
    return ((flat / scale).round().clamp(lowest, highest) * scale).reshape(weight.shape).to(weight.dtype)


def floor_to_range(x: Tensor, low: Tensor, high: Tensor, bits: int) -> Tensor:
    """The formula of the paper's slides: low + clamp(floor((x - low) / scale), 0, 2^k - 1) * scale.

    scale = (high - low) / (2^k - 1), at least the float32 epsilon: up to a whole step off, always downwards, and zero
    is a level only by chance. float32, any shape.
    """
    levels = 2**bits - 1
    scale = ((high - low) / levels).clamp_min(_EPSILON)
    return low + ((x - low) / scale).floor().clamp(0, levels) * scale


class ActivationQuantizer(nn.Module):
    """Per tensor, asymmetric, k bits; the range is the least and greatest value seen while calibrating.

    scale = (max - min) / (2^k - 1), at least the float32 epsilon; zero = clamp(-round(min / scale), 0, 2^k - 1);
    x_q = (clamp(round(x / scale + zero), 0, 2^k - 1) - zero) * scale. Inputs of any shape, results in their dtype.
    Values outside the range clip to its ends; NaN stays NaN. formula="slides": see `floor_to_range`.
    """

    def __init__(self, bits: int, formula: str = "published") -> None:
        super().__init__()
        self.bits, self.formula = check_bits("activation_bits", bits), check_formula(formula)
        self.calibrating = True
        self.register_buffer("low", torch.tensor(float("inf")))
        self.register_buffer("high", torch.tensor(float("-inf")))
        self.register_load_state_dict_post_hook(_end_calibration)

    def forward(self, x: Tensor) -> Tensor:
        if self.calibrating:
            low, high = x.detach().float().aminmax()
            # torch.minimum hands NaN on, so a broken calibration is noticed when ranges are frozen
            self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
            return x
        return self.quantize(x)

    def grid(self) -> tuple[Tensor, Tensor]:
        """(scale, zero point) of the frozen range; a positive-only or negative-only range need not hold zero."""
        levels = 2**self.bits - 1
        scale = ((self.high - self.low) / levels).clamp_min(_EPSILON)
        return scale, (-(self.low / scale).round()).clamp(0, levels)

    def quantize(self, x: Tensor) -> Tensor:
        if self.formula == "slides":
            return floor_to_range(x.float(), self.low, self.high, self.bits).to(x.dtype)
        scale, zero = self.grid()
        levels = (x.float() / scale).add_(zero).round_().clamp_(0, 2**self.bits - 1)  # one new tensor
        return levels.sub_(zero).mul_(scale).to(x.dtype)

    def freeze(self, name: str) -> None:
        """End the calibration; InvalidImages where nothing or nothing finite was seen, or a range beyond float32."""
        if not torch.isfinite(self.high - self.low):
            raise InvalidImages(
                f"calibration of {name} saw the range {float(self.low)} to {float(self.high)}"
            )
        self.calibrating = False


def _end_calibration(quantizer: ActivationQuantizer, _: object) -> None:
    """A range that was loaded is as frozen as it was when it was saved."""
    quantizer.calibrating = not bool(torch.isfinite(quantizer.low) and torch.isfinite(quantizer.high))

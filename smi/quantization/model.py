"""A timm ViT with quantized weights and activations: where each quantizer stands in the forward pass.

Softmax, LayerNorm and GELU run in float. Shapes: B images, C channels, H x W pixels, N tokens, K kept patches, D width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smi.errors import InvalidImages, InvalidSetting, NotCalibrated
from smi.foreign.convert import model_given
from smi.geometry import patchify, take_patches
from smi.quantization.blocks import Make, QuantizedBlock
from smi.quantization.deployment.export import Exported, export
from smi.quantization.deployment.profiles import of_profile
from smi.quantization.layers import QuantizedConv2d, QuantizedLinear
from smi.quantization.placement import HEAD, STEM
from smi.quantization.recipes import QUANTIZERS, Quantizer, quantizer
from smi.quantization.refusals import plain_copy, refuse_unhandled
from smi.quantization.saving import save
from smi.quantizers import ActivationQuantizer, LogSqrt2Quantizer, check_bits
from smi.vit import adapt


class QuantizedViT(nn.Module):
    """A ViT with quantized weights and activations. forward(image, kept=None) -> logits [B, classes].

    image: float32 [B, C, H, W], normalised as the original expects; kept: int64 [B, K], the patches that are fed
    forward. A model without a head gives its features [B, D]. `smi.quantize` makes and calibrates one; another
    QuantizedViT of the same model, bits, quantizer and whole_stem takes its state_dict over, integers and ranges. Until
    then forward raises NotCalibrated.
    """

    def __init__(
        self,
        model: nn.Module,
        weight_bits: int,
        activation_bits: int,
        quantizer: str | Quantizer = "psaq",
        whole_stem: bool = False,
    ) -> None:
        super().__init__()
        model = model_given(model)
        self.model: Any = plain_copy(model)
        self.tokens = adapt(self.model, headless=True)  # reads the stem; blocks are run here
        refuse_unhandled(self.model)
        self.recipe = _resolved(quantizer)
        self.whole_stem = whole_stem  # see smi.published
        self.weight_bits = check_bits("weight_bits", weight_bits)
        self.activation_bits = check_bits("activation_bits", activation_bits)
        self.pretrained_cfg = dict(getattr(model, "pretrained_cfg", None) or {})
        self.calibrated_on: dict[str, Any] = {}  # where the calibration came from, in JSON values
        self._open = False
        headless = isinstance(self.model.head, nn.Identity)
        places = set(self.recipe.places)
        places -= {"positions"} if self.model.pos_embed is None else set()
        places -= {"logits"} if headless else set()
        if headless and isinstance(self.recipe.placement, str) and self.recipe.placement != "psaq":
            places -= {"normed", "normed_dist"}  # no matrix product reads them
        self._build(lambda place: self._make(place) if place in places else nn.Identity())

    def _build(self, make: Make) -> None:
        model = self.model
        model.patch_embed.proj = QuantizedConv2d(model.patch_embed.proj)
        model.blocks = nn.ModuleList(QuantizedBlock(block, make) for block in model.blocks)
        self.heads = [name for name in ("head", "head_dist") if getattr(model, name, None) is not None]
        for name in self.heads:
            if not isinstance(getattr(model, name), nn.Identity):
                setattr(model, name, QuantizedLinear(getattr(model, name)))
        distilled = "head_dist" in self.heads
        places = [place for place in (*STEM, *HEAD) if distilled or place != "normed_dist"]
        self.quantizers: Any = nn.ModuleDict({place: make(place) for place in places})
        if self.recipe.reparameterise:  # which gives a layer without bias one
            for block in self.blocks:
                for layer in (block.attn.qkv, block.mlp.fc1):
                    if layer.bias is None:
                        layer.bias = nn.Parameter(
                            layer.weight.new_zeros(layer.out_features), requires_grad=False
                        )
        for name, one in self.activation_quantizers():
            one.name = name

    def _make(self, place: str) -> ActivationQuantizer:
        recipe, bits = self.recipe, self.activation_bits
        if place == "softmax" and recipe.softmax == "log_sqrt2":
            return LogSqrt2Quantizer(bits, recipe.range_of, recipe.sequential)
        bits = recipe.image_bits or bits if place == "image" else bits
        return ActivationQuantizer(bits, recipe.grid, recipe.range_of, at_once=recipe.sequential)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one safetensors file from which smi.load_quantized makes an equal model, and nothing else is needed.

        It holds the architecture, integers, ranges, normalisation and where the calibration came from, with a checksum;
        weights of 4 bits and less take half a byte. Raises NotCalibrated, UnsupportedModel for a part that a file
        cannot describe, and InvalidFile where the file is there already (unless overwrite) or cannot be written.
        """
        save(self, path, overwrite)

    def deployed(self, profile: str = "integer", *, reduce_range: bool = False) -> QuantizedViT:
        """What a file of that profile computes: a copy without the quantizers that the profile leaves out.

        profile: "integer" keeps those of matrix products' inputs, "exact" all. So the accuracy of this copy is the
        file's, and of a model quantized at more places, psaq's for one, it is not this model's. reduce_range: weights
        of 8 bits are rounded to 7, from their integers.
        """
        return of_profile(self, profile, reduce_range)

    def export(
        self,
        path: str | Path,
        profile: str = "integer",
        *,
        pack: str = "int8",
        preprocess: bool = False,
        reduce_range: bool = False,
        overwrite: bool = False,
    ) -> Exported:
        """Write an ONNX file (opset 21, any batch size) that computes what `deployed` of that profile computes.

        It takes all patches of "image" [B, C, H, W], normalised, or with preprocess "pixels" in [0, 1]; it gives
        "logits". Activations are uint8, with fewer levels where they have fewer bits; a quantizer that this cannot
        express (log-sqrt2, the slides' floor, a zero point that is no whole number) is written in float with its
        products, and a warning says so. One difference: ONNX rounds x / scale and then adds zero, psaq's formula rounds
        their sum, so exact ties can come out a step apart.
        pack: "int8" for integer kernels; "int4" for weights of up to 4 bits in half the space, multiplied in float.
        reduce_range: see `deployed`; for x86 without VNNI, whose kernels saturate with 8-bit weights.
        Needs the extra "onnx". Raises MissingExtra, NotCalibrated, InvalidSetting, UnsupportedModel, InvalidFile.
        """
        return export(self, path, profile, pack, preprocess, reduce_range, overwrite)

    @property
    def blocks(self) -> Any:
        """The model's blocks in order, QuantizedBlock each."""
        return self.model.blocks

    @property
    def calibrated(self) -> bool:
        """Whether every range is frozen and every weight quantized."""
        ranges = (not one.calibrating for _, one in self.activation_quantizers())
        return all(ranges) and all(layer.is_quantized for _, layer in self.layers())

    def need_calibration(self) -> None:
        """Raise NotCalibrated where it is not."""
        if not self.calibrated:
            raise NotCalibrated(
                "the quantized model is not calibrated: smi.quantize does that, or load_state_dict of one that is"
            )

    def train(self, mode: bool = True) -> QuantizedViT:
        """Always in evaluation mode: a quantized model is not trained."""
        return super().train(False)

    def get_extra_state(self) -> Tensor:
        """What the ranges and weights of a state_dict were made with: JSON text as uint8."""
        made = {
            "weight_bits": self.weight_bits,
            "activation_bits": self.activation_bits,
            "quantizer": self.recipe.to_json(),
            "whole_stem": self.whole_stem,
        }
        return torch.tensor(list(json.dumps(made, sort_keys=True).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """InvalidSetting where a state_dict was made otherwise than this model quantizes."""
        there, here = (_spelled(value) for value in (state, self.get_extra_state()))
        if there != here:
            raise InvalidSetting(f"the state_dict is of {there}, this model is {here}; they must be equal")

    def activation_quantizers(self) -> Iterator[tuple[str, ActivationQuantizer]]:
        """(name, quantizer) of every place, e.g. blocks.0.norm1_out: those of the blocks, then the others."""
        return self._named(ActivationQuantizer)

    def layers(self) -> Iterator[tuple[str, QuantizedLinear | QuantizedConv2d]]:
        """(name, layer) of every layer with integer weights: patch convolution, qkv, proj, fc1, fc2, heads."""
        return self._named((QuantizedLinear, QuantizedConv2d))

    def _named(self, kind: Any) -> Iterator[tuple[str, Any]]:
        found = ((name, module) for name, module in self.named_modules() if isinstance(module, kind))
        return ((name.removeprefix("model."), module) for name, module in found)

    def quantize_weights(self) -> None:
        """Round every layer's weight to integers; biases, norms, tokens and positions stay in float."""
        for _, layer in self.layers():
            layer.quantize_weight(
                self.weight_bits, self.recipe.weights, self.recipe.grid, self.recipe.range_of
            )

    @contextmanager
    def calibrating(self) -> Iterator[None]:
        """While open, forward passes take what they see into the ranges, and answer in the precision they have then."""
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def freeze(self) -> None:
        """End the calibration of every range; InvalidImages where one is not finite."""
        for name, one in self.activation_quantizers():
            if one.calibrating:
                one.freeze(name)

    def embed(self, image: Tensor, kept: Tensor | None) -> Tensor:
        """Tokens [B, N, D] with the stem's quantizers: image, patches, CLS concatenated, positions, their sum."""
        if self.whole_stem and kept is not None:
            x, first = self.embed(image, None), self.tokens.prefix_tokens
            remaining = x[:, first:].take_along_dim(kept.unsqueeze(2), dim=1)
            return torch.cat([x[:, :first], remaining], dim=1)
        tokens, quantizers, layer = self.tokens, self.quantizers, self.model.patch_embed
        patches = patchify(image, tokens.grid) if kept is None else take_patches(image, kept, tokens.grid)
        x = F.linear(quantizers["image"](patches), layer.proj.weight.flatten(1), layer.proj.bias)
        x = quantizers["patches"](layer.norm(x))
        prefix = tokens.prefix()
        if prefix is not None:
            x = torch.cat([prefix.expand(x.shape[0], -1, -1), x], dim=1)
        x = quantizers["concatenated"](x)
        positions = self.positions(x.shape[0], kept)
        if positions is not None:
            x = x + quantizers["positions"](positions)
        return self.model.norm_pre(quantizers["embedded"](x))

    def positions(self, batch: int, kept: Tensor | None) -> Tensor | None:
        """Position embeddings of all tokens [batch, N, D], zero where one has none; None for a model without."""
        of_prefix, of_patches = self.tokens.positions(kept)
        if of_patches is None:
            return None
        of_patches, prefix = of_patches.expand(batch, -1, -1), self.tokens.prefix()
        if prefix is None:
            return of_patches
        none = prefix.new_zeros(1, self.tokens.prefix_tokens, of_patches.shape[2])
        before = (none if of_prefix is None else of_prefix).expand(batch, -1, -1)
        return torch.cat([before, of_patches], dim=1)

    def classify(self, x: Tensor) -> Tensor:
        """Final norm, pooling and head: tokens [B, N, D] -> logits [B, classes], or features where there is no head.

        A distilled model has two heads, which read a token each; its logits are their mean.
        """
        x = self.model.norm(x)
        if "head_dist" in self.heads:
            first = self.model.head(self.quantizers["normed"](x[:, 0]))
            return self.quantizers["logits"](
                (first + self.model.head_dist(self.quantizers["normed_dist"](x[:, 1]))) / 2
            )
        normed = self.model.forward_head(x, pre_logits=True)
        return self.quantizers["logits"](self.model.head(self.quantizers["normed"](normed)))

    def forward(self, image: Tensor, kept: Tensor | None = None) -> Tensor:
        self._check_input(image, kept)
        if not self._open:
            self.need_calibration()
        x = self.embed(image, kept)
        for block in self.blocks:
            x = block(x)
        return self.classify(x)

    def _check_input(self, image: Tensor, kept: Tensor | None) -> None:
        """InvalidImages unless the images, and the kept patches if there are any, are as the model takes them."""
        tokens = self.tokens
        expected = (tokens.channels, tokens.grid.height, tokens.grid.width)
        if image.ndim != 4 or tuple(image.shape[1:]) != expected or not image.is_floating_point():
            raise InvalidImages(
                f"images are {str(image.dtype).removeprefix('torch.')} {list(image.shape)}, the model takes float32 "
                f"[B, {', '.join(map(str, expected))}]; they must fit each other"
            )
        if kept is None:
            return
        if kept.ndim != 2 or kept.dtype != torch.int64 or not 0 < kept.shape[1] <= tokens.grid.patches:
            raise InvalidImages(
                f"kept patches are {kept.dtype} {list(kept.shape)}; allowed: int64 [B, K], K from 1 to "
                f"{tokens.grid.patches}"
            )
        if kept.numel() and (kept.amin() < 0 or kept.amax() >= tokens.grid.patches):
            raise InvalidImages(f"kept patches must lie from 0 to {tokens.grid.patches - 1}")


_resolved = quantizer  # `QuantizedViT.__init__` has an argument of that name


def _spelled(state: Tensor) -> str:
    """`get_extra_state` in words."""
    try:
        made = json.loads(bytes(state.cpu().tolist()))
        recipe = Quantizer.from_json(made["quantizer"])
        words = f"W{made['weight_bits']}/A{made['activation_bits']}, quantizer {recipe.name}"
        words += ", whole_stem" if made["whole_stem"] else ""
    except (ValueError, KeyError, TypeError) as cause:
        raise InvalidSetting(f"the state_dict is of another version of smi ({cause})") from cause
    return words if recipe == QUANTIZERS.get(recipe.name) else f"{words} {recipe.to_json()}"

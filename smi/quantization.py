"""Fake quantization of a timm ViT after training, as PSAQ-ViT and SMI do it (paper section 4, W/A k bits).

Where the quantizers (smi/quantizers.py) stand in the model, and their calibration. Softmax, LayerNorm and GELU run in
float. Shapes: B images, N tokens, D width, h heads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from smi import published
from smi.checks import is_whole
from smi.device import outside_autocast
from smi.errors import InvalidImages, InvalidSetting, UnsupportedModel
from smi.geometry import patchify, take_patches
from smi.images import SyntheticImages
from smi.quantizers import FORMULAS, ActivationQuantizer, check_bits, quantize_weight
from smi.vit import TokenModel, adapt, normalisation


class QuantizedAttention(nn.Module):
    """timm's Attention with quantizers after qkv, on the scaled scores, after attention x v, and after proj."""

    def __init__(self, attention: nn.Module, make: Callable[[], ActivationQuantizer]) -> None:
        super().__init__()
        self.attention = attention
        self.qkv_out, self.scores, self.mixed, self.proj_out = (make() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.attention
        qkv = self.qkv_out(inner.qkv(x)).unflatten(2, (3, inner.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # [B, h, N, D/h] each
        query, key = inner.q_norm(query), inner.k_norm(key)
        scores = self.scores((query @ key.transpose(-2, -1)) * inner.scale)
        mixed = self.mixed((scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))
        return self.proj_out(inner.proj(mixed))


class QuantizedBlock(nn.Module):
    """timm's Block with quantizers after norm1, the attention, both residual sums, norm2, GELU and fc2."""

    def __init__(self, block: nn.Module, make: Callable[[], ActivationQuantizer]) -> None:
        super().__init__()
        self.norm1, self.ls1 = block.norm1, block.ls1
        self.norm2, self.ls2, self.mlp = block.norm2, block.ls2, block.mlp
        self.attn = QuantizedAttention(block.attn, make)
        self.norm1_out, self.sum1, self.norm2_out, self.act_out, self.mlp_out, self.sum2 = (
            make() for _ in range(6)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.sum1(x + self.ls1(self.attn(self.norm1_out(self.norm1(x)))))
        hidden = self.act_out(self.mlp.act(self.mlp.fc1(self.norm2_out(self.norm2(x)))))
        return self.sum2(x + self.ls2(self.mlp_out(self.mlp.fc2(hidden))))


class QuantizedViT(nn.Module):
    """A ViT with quantized weights and activations. forward(image, kept=None) -> logits [B, classes].

    image: [B, C, H, W], normalised as the original expects; kept: int64 [B, K], the patches that are fed forward.
    Another QuantizedViT of the same model, bits, formula and whole_stem takes its state_dict over, weights and ranges.
    """

    def __init__(
        self,
        model: nn.Module,
        weight_bits: int,
        activation_bits: int,
        whole_stem: bool = False,
        formula: str = "published",
    ) -> None:
        super().__init__()
        _refuse_unhandled(model)
        self.whole_stem = whole_stem  # see smi.published
        self.weight_bits = check_bits("weight_bits", weight_bits)
        self.activation_bits = check_bits("activation_bits", activation_bits)
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.pretrained_cfg = dict(getattr(model, "pretrained_cfg", None) or {})
        self.formula = formula
        make = partial(ActivationQuantizer, activation_bits, formula)
        self._tokens = adapt(self.model)  # reads the embedding; blocks are run here
        self.blocks = nn.ModuleList(QuantizedBlock(block, make) for block in self.model.blocks)
        names = ("image", "patches", "concatenated", "positions", "embedded", "normed", "logits")
        self.quantizers = nn.ModuleDict({name: make() for name in names})

    def train(self, mode: bool = True) -> QuantizedViT:
        """Always in evaluation mode: a quantized model is not trained."""
        return super().train(False)

    def get_extra_state(self) -> Tensor:
        """What the ranges and weights of a state_dict were made with: int64 [4]."""
        made = (self.weight_bits, self.activation_bits, FORMULAS.index(self.formula), self.whole_stem)
        return torch.tensor(made, dtype=torch.int64)

    def set_extra_state(self, state: Tensor) -> None:
        """InvalidSetting where a state_dict was made otherwise than this model quantizes."""
        if not torch.equal(state.cpu(), self.get_extra_state()):
            there, here = (_spelled(value.tolist()) for value in (state, self.get_extra_state()))
            raise InvalidSetting(f"the state_dict is of {there}, this model is {here}; they must be equal")

    def activation_quantizers(self) -> Iterator[tuple[str, ActivationQuantizer]]:
        """(name, quantizer): those of the blocks in order, then those before and after the blocks."""
        return ((n, m) for n, m in self.named_modules() if isinstance(m, ActivationQuantizer))

    def quantize_weights(self) -> None:
        """Replace the weights of patch convolution, qkv, proj, fc1, fc2 and head; biases stay in float."""
        attention = [layer for b in self.blocks for layer in (b.attn.attention.qkv, b.attn.attention.proj)]
        mlp = [layer for block in self.blocks for layer in (block.mlp.fc1, block.mlp.fc2)]
        for layer in [self.model.patch_embed.proj, *attention, *mlp, self.model.head]:
            layer.weight.copy_(quantize_weight(layer.weight, self.weight_bits, self.formula))

    def embed(self, image: Tensor, kept: Tensor | None) -> Tensor:
        """Tokens [B, N, D] with the stem's quantizers: image, patches, CLS concatenated, positions, their sum."""
        if self.whole_stem and kept is not None:
            x, first = self.embed(image, None), self._tokens.prefix_tokens
            of_patches = x[:, first:].take_along_dim(kept.unsqueeze(2), dim=1)
            return torch.cat([x[:, :first], of_patches], dim=1)
        tokens, quantizers = self._tokens, self.quantizers
        patches = patchify(image, tokens.grid) if kept is None else take_patches(image, kept, tokens.grid)
        x = quantizers["patches"](tokens.embed_patches(quantizers["image"](patches)))
        prefix = tokens.prefix()
        of_prefix, of_patches = tokens.positions(kept)
        if prefix is not None:
            x = torch.cat([prefix.expand(x.shape[0], -1, -1), x], dim=1)
        x = quantizers["concatenated"](x)
        if of_patches is not None:
            of_patches = of_patches.expand(x.shape[0], -1, -1)
            if prefix is not None:
                none = prefix.new_zeros(1, tokens.prefix_tokens, x.shape[2])
                of_prefix = (none if of_prefix is None else of_prefix).expand(x.shape[0], -1, -1)
                of_patches = torch.cat([of_prefix, of_patches], dim=1)
            x = x + quantizers["positions"](of_patches)
        return self.model.norm_pre(quantizers["embedded"](x))

    def classify(self, x: Tensor) -> Tensor:
        """Final norm, pooling and head: tokens [B, N, D] -> logits [B, classes]."""
        normed = self.model.forward_head(self.model.norm(x), pre_logits=True)
        return self.quantizers["logits"](self.model.head(self.quantizers["normed"](normed)))

    def forward(self, image: Tensor, kept: Tensor | None = None) -> Tensor:
        x = self.embed(image, kept)
        for block in self.blocks:
            x = block(x)
        return self.classify(x)


@outside_autocast()
@torch.no_grad()
def quantize(
    model: nn.Module,
    images: SyntheticImages,
    weight_bits: int = 4,
    activation_bits: int = 8,
    *,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    formula: Literal["published", "slides"] = "published",
    deviations: Iterable[str] = (),
) -> QuantizedViT:
    """A quantized copy of a timm ViT, calibrated on images through their kept patches; the model is not changed.

    weight_bits, activation_bits: 2 to 8. batch_size: images per calibration pass (all at once by default; the
    min-max ranges do not depend on it beyond rounding). device: the model's own by default.
    formula: the quantizers of the authors' code, or those of the paper's slides (floor, one asymmetric range a tensor).
    deviations: names of smi.published.OF_CALIBRATION: where to follow the published code instead of the paper.
    Ranges are taken in full precision at every quantizer, then frozen, then weights and activations are quantized.
    Raises InvalidSetting, InvalidImages, UnsupportedModel.
    """
    chosen = published.check(deviations, published.OF_CALIBRATION)
    quantized = QuantizedViT(model, weight_bits, activation_bits, "whole_stem" in chosen, formula)
    device = torch.device(device) if device is not None else next(model.parameters()).device
    quantized.to(device)
    check_fit(images, quantized._tokens)
    mean, std = (t.to(device) for t in normalisation(model))
    size = len(images) if batch_size is None else batch_size
    if not is_whole(size) or size < 1:
        raise InvalidSetting(f"batch_size is {batch_size!r}; allowed: a whole number >= 1")
    for start in range(0, len(images), size):
        part = images.select(slice(start, start + size))
        kept = None if part.kept is None else part.kept.to(device)
        pixels = part.masked() if "keep_zero" in chosen else part.pixels
        quantized(published.normalise(pixels.to(device), mean, std, "keep_zero" in chosen), kept)
    for name, quantizer in quantized.activation_quantizers():
        if quantizer is quantized.quantizers["positions"] and quantized.model.pos_embed is None:
            quantizer.calibrating = False  # a model without positions never passes here
            continue
        quantizer.freeze(name)
    quantized.quantize_weights()
    return quantized


def check_fit(images: SyntheticImages, model: TokenModel) -> None:
    """InvalidImages unless the images are as the model takes them: channels, height, width, patch grid; not empty."""
    expected = (model.channels, model.grid.height, model.grid.width)
    if not isinstance(images, SyntheticImages):
        kind = type(images).__name__
        raise InvalidImages(f"images are a {kind}; allowed: SyntheticImages, e.g. SyntheticImages.load(path)")
    if not len(images):
        raise InvalidImages("there are no images in the set: at least 1 is needed")
    if tuple(images.pixels.shape[1:]) != expected:
        raise InvalidImages(
            f"images are {list(images.pixels.shape[1:])}, the model takes {list(expected)} (C, H, W)"
        )
    if images.kept is not None and tuple(images.patch_size) != model.patch_size:
        raise InvalidImages(
            f"kept patches are of {images.patch_size} pixels, the model's of {model.patch_size}"
        )


def _spelled(made: list[int]) -> str:
    """`get_extra_state` in words."""
    weight_bits, activation_bits, formula, whole_stem = made
    stem = ", whole_stem" if whole_stem else ""
    return f"W{weight_bits}/A{activation_bits}, formula {FORMULAS[formula]}{stem}"


def _refuse_unhandled(model: Any) -> None:
    """UnsupportedModel naming the first part for which there is no quantizer placement."""
    adapt(model)
    if getattr(model, "head_dist", None) is not None:
        raise UnsupportedModel("quantization of a distilled ViT (two heads) is not handled")
    for index, block in enumerate(model.blocks):
        if type(block.mlp).__name__ != "Mlp":
            raise UnsupportedModel(f"blocks.{index}.mlp is a {type(block.mlp).__name__}; only Mlp is handled")
        for owner, part in (("attn", "norm"), ("attn", "gate"), ("mlp", "norm")):
            module = getattr(getattr(block, owner), part, None)  # older versions of timm do not have them
            if module is not None and not isinstance(module, nn.Identity):
                raise UnsupportedModel(f"blocks.{index}.{owner}.{part} has no quantizer placement")

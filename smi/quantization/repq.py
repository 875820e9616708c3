"""RepQ-ViT's scale reparameterisation: ranges per channel after a norm become one range, exactly in full precision.

Source: Li et al., "RepQ-ViT: Scale Reparameterization for Post-Training Quantization of Vision Transformers", ICCV
2023.
Shapes: D channels of a norm, which the linear layer behind it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from smi.errors import UnsupportedModel
from smi.quantization.model import QuantizedViT
from smi.quantization.placement import READ_BY
from smi.quantization.refusals import plain_copy
from smi.quantizers import Fit

_DEAD = 1e-6  # a channel whose range is this small against its magnitude is constant but for rounding


def take_ranges_per_channel(quantized: QuantizedViT) -> None:
    """Before the calibration: the inputs of qkv and fc1 get a range for each channel."""
    for name, one in quantized.activation_quantizers():
        one.per_channel = name.rpartition(".")[2] in READ_BY


def check_norms(model: Any) -> None:
    """UnsupportedModel where a norm has no weight and bias that could take the factors over."""
    for index, block in enumerate(model.blocks):
        for name in ("norm1", "norm2"):
            norm = getattr(block, name)
            if getattr(norm, "weight", None) is None or getattr(norm, "bias", None) is None:
                raise UnsupportedModel(
                    f"blocks.{index}.{name} is a {type(norm).__name__} without weight and bias, which "
                    "reparameterisation needs: choose a quantizer without it"
                )


@torch.no_grad()
def reparameterised(model: Any, fits: Mapping[str, Fit]) -> tuple[nn.Module, dict[str, Fit]]:
    """A copy of a timm ViT that computes the same, and for each of its norms' outputs the one range of all channels.

    fits: name of the place (blocks.0.norm1_out) -> its range per channel [D]. The model given is not changed.
    """
    check_norms(model)
    model, whole = plain_copy(model), {}
    for index, block in enumerate(model.blocks):
        for name, norm, layer in (
            (f"blocks.{index}.norm1_out", block.norm1, block.attn.qkv),
            (f"blocks.{index}.norm2_out", block.norm2, block.mlp.fc1),
        ):
            whole[name] = _rescale(norm, layer, fits[name])
    return model, whole


def _rescale(norm: Any, layer: nn.Linear, fit: Fit) -> Fit:
    """Move scale and zero of each channel into norm and layer; scale and zero [] of all channels (not rounded).

    r = s / mean s and b = (mean z)(mean s) - z s / r: norm -> norm / r - b, layer -> weight r, bias + weight r b. A
    channel that is constant keeps r = 1 and is left out of the means, else its boundless zero point would carry all
    along.
    """
    of_channels = Fit(*(one.double() for one in fit))  # what is moved cancels, to the last bits of float32
    scale, zero = of_channels.scale, of_channels.zero
    least = -zero * scale
    alive = (fit.high - fit.low) > _DEAD * torch.maximum(fit.low.abs(), fit.high.abs())
    if not alive.all():
        of_living = alive if alive.any() else torch.ones_like(alive)
        scale = torch.where(alive, scale, scale[of_living].mean())
        zero = torch.where(alive, zero, zero[of_living].mean())
    one_scale, one_zero = scale.mean(), zero.mean()
    factor = scale / one_scale
    shift = least / factor + one_zero * one_scale
    weight = layer.weight.double() * factor
    moved = weight @ shift
    norm.weight.copy_(norm.weight / factor)
    norm.bias.copy_(norm.bias / factor - shift)
    layer.weight.copy_(weight)
    if layer.bias is None:
        layer.bias = nn.Parameter(moved.float(), requires_grad=False)
    else:
        layer.bias.copy_(layer.bias + moved)
    return _fit(one_scale, one_zero, fit)


def _fit(scale: Tensor, zero: Tensor, of_channels: Fit) -> Fit:
    """The range that a scale and a zero point span, with as many levels as those of the channels."""
    span = ((of_channels.high - of_channels.low) / of_channels.scale).max()
    return Fit(*(one.float() for one in (-zero * scale, (span - zero) * scale, scale, zero)))

"""Linear and convolution layers whose weights are k-bit integers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from smi.quantizers import IntegerWeight, RangeOf, integer_weight


class _IntegerWeights(nn.Module):
    """Holds `codes` int8 as the weight, and scale, zero, offset float32 [out, 1, ...] (smi.quantizers.IntegerWeight).

    `weight` is what they stand for, float32, and no part of a state_dict; until `quantize_weight` it is the given one.
    """

    weight: Any
    bias: Any
    codes: Tensor
    scale: Tensor
    zero: Tensor
    offset: Tensor

    def _take_over(self, layer: nn.Linear | nn.Conv2d) -> None:
        weight = layer.weight.detach()
        del self.weight
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("codes", torch.zeros(weight.shape, dtype=torch.int8, device=weight.device))
        for name in ("scale", "zero", "offset"):
            empty = weight.new_full((len(weight), *[1] * (weight.ndim - 1)), float("nan"))
            self.register_buffer(name, empty)
        self.bias = layer.bias
        self.is_quantized = False
        self.register_load_state_dict_post_hook(_restore)

    def quantize_weight(self, bits: int, kind: str, grid: str, range_of: RangeOf | None) -> None:
        """Round the weight to k-bit integers, see `smi.quantizers.integer_weight`; biases stay in float."""
        self._set(integer_weight(self.weight, bits, kind, grid, range_of))

    @property
    def integers(self) -> IntegerWeight:
        return IntegerWeight(self.codes, self.scale, self.zero, self.offset)

    def _set(self, integers: IntegerWeight) -> None:
        self.codes, self.scale, self.zero, self.offset = integers
        self.weight, self.is_quantized = integers.dequantized(), True


class QuantizedLinear(_IntegerWeights, nn.Linear):
    """A linear layer with integer weights; the product itself is in float32."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self._take_over(layer)


class QuantizedConv2d(_IntegerWeights, nn.Conv2d):
    """A convolution with integer weights; the product itself is in float32."""

    def __init__(self, layer: Any) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
            bias=False,
            padding_mode=layer.padding_mode,
            device="meta",
        )
        self._take_over(layer)


def _restore(layer: _IntegerWeights, _: object) -> None:
    """Integers that were loaded are what the layer multiplies by."""
    if torch.isfinite(layer.scale).all():
        layer._set(layer.integers)

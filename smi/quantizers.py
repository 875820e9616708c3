"""k-bit fake quantization: the formulas for weights and activations, and the modules that calibrate themselves.

Which range calibration takes is a function given from outside (smi/quantization/ranges.py); without one it is the least
and the greatest value seen. Sources: PSAQ-ViT's published code and SMI's slides; RepQ-ViT (Li et al., ICCV 2023).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from smi.checks import is_whole
from smi.errors import InvalidImages, InvalidSetting

BITS = range(2, 9)
GRIDS: Mapping[str, str] = {
    "clamped_zero": "PSAQ-ViT: zero = clamp(-round(min / scale), 0, 2^k - 1); x / scale + zero is rounded. A range "
    "that does not hold zero collapses, with a warning",
    "floor": "the slides: min + floor((x - min) / scale) * scale",
    "zero_included": "the range is widened to hold zero; x / scale is rounded, then zero added, as ONNX does",
    "free_zero": "RepQ-ViT: zero = round(-min / scale) is any whole number; x / scale is rounded, then zero added",
}
WEIGHTS: Mapping[str, str] = {
    "symmetric": "per output channel, zero in the middle, min-max",
    "asymmetric": "per output channel, min and max apart, with the range that activations take",
    "floor": "the slides: one asymmetric range for the whole tensor, rounded down",
}
_EPSILON = torch.finfo(torch.float32).eps
_TINY = torch.finfo(torch.float32).tiny

Error = Callable[[Tensor, Tensor], Tensor]
RangeOf = Callable[[Tensor, Error], tuple[Tensor, Tensor]]  # see smi/quantization/ranges.py


class Fit(NamedTuple):
    """A range and its levels, per tensor [] or per channel [C]: level q stands for (q - zero) * scale."""

    low: Tensor
    high: Tensor
    scale: Tensor
    zero: Tensor


def check_bits(name: str, bits: int) -> int:
    """`bits` itself; InvalidSetting unless it is a whole number from 2 to 8."""
    if not is_whole(bits) or bits not in BITS:
        raise InvalidSetting(f"{name} is {bits!r}; allowed: whole numbers {BITS[0]} to {BITS[-1]}")
    return bits


def check_choice(name: str, value: str, allowed: Mapping[str, str]) -> str:
    """`value` itself; InvalidSetting unless it is among `allowed`."""
    if value not in allowed:
        raise InvalidSetting(f"unknown {name} {value!r}; allowed: {', '.join(allowed)}")
    return value


def fit_uniform(low: Tensor, high: Tensor, bits: int, grid: str) -> Fit:
    """2^k levels over [low, high], scale = (high - low) / (2^k - 1); where zero lies is told in GRIDS.

    The scale is at least the float32 epsilon in the published formulas, and for the others as small as keeps
    low / scale exact, so that tiny values have levels of their own.
    """
    levels = 2**bits - 1
    if grid == "zero_included":
        low, high = low.clamp_max(0), high.clamp_min(0)
    scale = (high - low) / levels
    if grid == "free_zero":
        least = _EPSILON * torch.maximum(low.abs(), high.abs())
        scale = torch.maximum(scale, least).clamp_min(_TINY)
    else:
        scale = scale.clamp_min(_TINY if grid == "zero_included" else _EPSILON)
    if grid == "floor":
        return Fit(low, high, scale, -low / scale)
    zero = -(low / scale).round()
    return Fit(low, high, scale, zero if grid == "free_zero" else zero.clamp(0, levels))


def quantize_uniform(x: Tensor, fit: Fit, bits: int, grid: str) -> Tensor:
    """x rounded to the levels of `fit`, float32; values outside clip to the ends, NaN stays NaN."""
    levels, x = 2**bits - 1, x.float()
    if grid == "floor":
        return fit.low + ((x - fit.low) / fit.scale).floor().clamp(0, levels) * fit.scale
    steps = x / fit.scale  # one new tensor
    steps = steps.add_(fit.zero).round_() if grid == "clamped_zero" else steps.round_().add_(fit.zero)
    return steps.clamp_(0, levels).sub_(fit.zero).mul_(fit.scale)


class IntegerWeight(NamedTuple):
    """weight = (codes - zero) * scale + offset; codes int8 as the weight, the others float32 [out, 1, ...]."""

    codes: Tensor
    scale: Tensor
    zero: Tensor
    offset: Tensor

    def dequantized(self) -> Tensor:
        """float32, as the weight."""
        return (self.codes - self.zero) * self.scale + self.offset


def integer_weight(
    weight: Tensor,
    bits: int,
    kind: str = "symmetric",
    grid: str = "zero_included",
    range_of: RangeOf | None = None,
) -> IntegerWeight:
    """The k-bit integers of a weight [out, ...] and what they stand for; kind: see WEIGHTS.

    symmetric: clamp(round(w / scale), -2^(k-1), 2^(k-1) - 1), scale = max(-min, max) / ((2^k - 1) / 2), at least the
    float32 epsilon; zero maps to zero exactly, and the largest magnitude of a channel is off by up to scale where it
    clips at the positive end. asymmetric: grid "free_zero" as it is, else "zero_included"; range_of: min-max by
    default.
    """
    check_bits("weight_bits", bits)
    check_choice("kind of weights", kind, WEIGHTS)
    half, flat = 2 ** (bits - 1), weight.detach().float().flatten(1)
    none = flat.new_zeros(len(flat))
    if kind == "symmetric":
        bound = torch.maximum(-flat.amin(dim=1), flat.amax(dim=1))
        scale = (bound / ((2 * half - 1) / 2)).clamp_min(_EPSILON)
        codes, zero, offset = (flat / scale.unsqueeze(1)).round().clamp(-half, half - 1), none, none
    elif kind == "floor":
        fit = fit_uniform(*flat.aminmax(), bits, "floor")
        codes = ((flat - fit.low) / fit.scale).floor().clamp(0, 2 * half - 1) - half
        scale, zero, offset = fit.scale.expand_as(none), none - half, fit.low.expand_as(none)
    else:
        grid = "free_zero" if grid == "free_zero" else "zero_included"
        choose = range_of or (lambda rows, _: rows.aminmax(dim=1))
        fit = fit_uniform(*choose(flat, partial(_error, flat, bits, grid)), bits, grid)
        steps = (flat / fit.scale.unsqueeze(1)).round() + fit.zero.unsqueeze(1)
        codes, scale, zero, offset = steps.clamp(0, 2 * half - 1) - half, fit.scale, fit.zero - half, none
    columns = [one.reshape(-1, *[1] * (weight.ndim - 1)).clone() for one in (scale, zero, offset)]
    return IntegerWeight(codes.to(torch.int8).reshape(weight.shape), *columns)


def quantize_weight(weight: Tensor, bits: int, *how: Any) -> Tensor:
    """What the integers of `integer_weight` stand for: the weight's own shape and dtype."""
    return integer_weight(weight, bits, *how).dequantized().to(weight.dtype)


def _error(rows: Tensor, bits: int, grid: str, low: Tensor, high: Tensor) -> Tensor:
    """Mean squared error [C] of rows [C, n] quantized in the ranges [C]."""
    fit = Fit(*(one.unsqueeze(1) for one in fit_uniform(low, high, bits, grid)))
    return (quantize_uniform(rows, fit, bits, grid) - rows).square().mean(dim=1)


class ActivationQuantizer(nn.Module):
    """k bits, uniform, asymmetric; grid: see GRIDS. The range is found while calibrating, then frozen.

    While it calibrates it hands on what it sees. Inputs of any shape, results in their dtype; values outside the range
    clip to its ends, NaN stays NaN. range_of: None takes the least and the greatest value seen. per_channel: a range
    for each value of the last dimension. at_once: the first input is calibrated on and quantized already.
    Buffers, float32 [] or [C]: low, high, scale, zero. Where zero is no whole number (after reparameterisation) the two
    ends lie off the grid of the others: then there are up to 2^k + 1 levels.
    """

    low: Tensor
    high: Tensor
    scale: Tensor
    zero: Tensor

    def __init__(
        self,
        bits: int,
        grid: str = "zero_included",
        range_of: RangeOf | None = None,
        per_channel: bool = False,
        at_once: bool = False,
    ) -> None:
        super().__init__()
        self.bits, self.grid = check_bits("activation_bits", bits), check_choice("grid", grid, GRIDS)
        self.range_of, self.per_channel, self.at_once = range_of, per_channel, at_once
        self.name = "an activation"  # a model says where it stands
        self.calibrating = True
        self._seen: list[Tensor] = []
        starts = (math.inf, -math.inf, math.nan, math.nan)
        for name, start in zip(Fit._fields, starts, strict=True):
            self.register_buffer(name, torch.tensor(start, dtype=torch.float32))
        self.register_load_state_dict_post_hook(_end_calibration)

    def forward(self, x: Tensor) -> Tensor:
        if self.calibrating:
            self.observe(x)
            if not self.at_once:
                return x
            self.freeze()
        return self.quantize(x)

    def observe(self, x: Tensor) -> None:
        """Take values into the range."""
        values = x.detach().float()
        rows = values.flatten(0, -2).T if self.per_channel else values.reshape(1, -1)
        low, high = rows.aminmax(dim=1) if self.per_channel else rows.aminmax()
        # torch.minimum hands NaN on, so a broken calibration is noticed when ranges are frozen
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        if self.range_of is not None:
            self._seen.append(rows)

    def freeze(self, name: str | None = None) -> None:
        """End the calibration; InvalidImages where nothing or nothing finite was seen, or a range beyond float32."""
        name = name or self.name
        if not torch.isfinite(self.high - self.low).all():
            least, greatest = float(self.low.min()), float(self.high.max())
            raise InvalidImages(f"calibration of {name} saw the range {least} to {greatest}")
        low, high = self.low, self.high
        if self.range_of is not None:
            rows = torch.cat(self._seen, dim=1)
            low, high = (
                end.reshape(self.low.shape) for end in self.range_of(rows, partial(self._error, rows))
            )
        self.set_fit(self.fit(low, high))
        self._seen = []
        self._warn_of_collapse(name)

    @property
    def found(self) -> Fit:
        """The range and its levels, once frozen."""
        return Fit(self.low, self.high, self.scale, self.zero)

    def set_fit(self, fit: Fit) -> None:
        """Quantize by this range and these levels from now on."""
        self.low, self.high, self.scale, self.zero = fit
        self.calibrating = False

    def fit(self, low: Tensor, high: Tensor) -> Fit:
        """The levels of a range."""
        return fit_uniform(low, high, self.bits, self.grid)

    def quantize(self, x: Tensor) -> Tensor:
        """x on the levels that were found, in its own dtype."""
        return self.apply_fit(x, self.found).to(x.dtype)

    def apply_fit(self, x: Tensor, fit: Fit) -> Tensor:
        """x on the levels of `fit`, float32."""
        return quantize_uniform(x, fit, self.bits, self.grid)

    def _error(self, rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Mean squared error [C] of rows [C, n] quantized in the ranges [C]."""
        fit = Fit(*(one.unsqueeze(1) for one in self.fit(low, high)))
        return (self.apply_fit(rows, fit) - rows).square().mean(dim=1)

    def _warn_of_collapse(self, name: str) -> None:
        if self.grid == "clamped_zero" and bool((self.low > 0).any() or (self.high < 0).any()):
            warnings.warn(
                f"{name} was calibrated on {float(self.low):.4g} to {float(self.high):.4g}: the published formula has "
                "levels from zero only, so few of them are in that range; the grid 'zero_included' has none of this",
                stacklevel=2,
            )


class LogSqrt2Quantizer(ActivationQuantizer):
    """RepQ-ViT's quantizer of the softmax output: k bits on a grid of powers of sqrt 2.

    q = round(-2 log2(x / scale)); values with q >= 2^k become 0, the others scale * 2^(-ceil(q / 2)), times sqrt 2
    where q is odd, and values above scale become scale: 2^k levels, and zero. scale is the upper end of the range. For
    x >= 0.
    """

    def __init__(self, bits: int, range_of: RangeOf | None = None, at_once: bool = False) -> None:
        super().__init__(bits, range_of=range_of, at_once=at_once)

    def fit(self, low: Tensor, high: Tensor) -> Fit:
        scale = high.clamp_min(_TINY)
        return Fit(low, high, scale, torch.zeros_like(scale))

    def apply_fit(self, x: Tensor, fit: Fit) -> Tensor:
        steps = (-2 * (x.float().clamp_min(0) / fit.scale).log2()).round()
        inside = steps.clamp(0, 2**self.bits - 1)
        values = 2 ** -(inside / 2).ceil() * (1 + (inside % 2) * (math.sqrt(2) - 1)) * fit.scale
        return values.masked_fill(steps >= 2**self.bits, 0.0)


def _end_calibration(quantizer: ActivationQuantizer, _: object) -> None:
    """A range that was loaded is as frozen as it was when it was saved."""
    quantizer.calibrating = not bool(torch.isfinite(quantizer.scale).all())

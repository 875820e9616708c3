"""Laws of the quantizers of weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import assume
from hypothesis import strategies as st

from laws.core import law, same, seeds
from smi import quantizers


@dataclass(frozen=True)
class Weights:
    channels: int
    inputs: int
    bits: int
    scale: float
    shift: float
    dtype: torch.dtype
    seed: int
    kind: str = "symmetric"

    def draw(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        rows = torch.randn(self.channels, self.inputs, generator=generator) + self.shift
        rows[:, 0] = 0
        return (rows * self.scale).to(self.dtype)


weights = st.builds(
    Weights,
    channels=st.integers(1, 6),
    inputs=st.integers(2, 40),
    bits=st.integers(2, 8),
    scale=st.sampled_from([1e-4, 0.03, 1.0, 100.0, 1e6]),
    shift=st.sampled_from([0.0, 0.0, 3.0, -3.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=seeds,
    kind=st.sampled_from(["symmetric", "asymmetric"]),
)


def weight_scale(weight: torch.Tensor, bits: int, kind: str) -> torch.Tensor:
    """Per output channel: greatest magnitude over half the number of steps, or the range over all of them."""
    flat = weight.float().flatten(1)
    if kind == "asymmetric":
        low, high = flat.aminmax(dim=1)
        return ((high.clamp_min(0) - low.clamp_max(0)) / (2**bits - 1)).unsqueeze(1)
    return (flat.abs().amax(1) / ((2**bits - 1) / 2)).clamp_min(torch.finfo(torch.float32).eps).unsqueeze(1)


@law(weights, examples=100)
def quantized_weights_lie_on_their_channels_levels(case):
    weight = case.draw()
    quantized = quantizers.quantize_weight(weight, case.bits, case.kind)
    assert quantized.shape == weight.shape and quantized.dtype == weight.dtype
    assert all(len(set(row)) <= 2**case.bits for row in quantized.tolist())
    if case.dtype == torch.float32:
        levels = quantized / weight_scale(weight, case.bits, case.kind)
        assert (levels - levels.round()).abs().max() < 1e-3
        if case.kind == "symmetric":
            assert levels.min() > -(2 ** (case.bits - 1)) - 0.5 and levels.max() < 2 ** (case.bits - 1) - 0.5


@law(weights, examples=100)
def a_weight_moves_by_half_a_step_at_most(case):
    assume(case.dtype == torch.float32)
    weight = case.draw()
    error = (quantizers.quantize_weight(weight, case.bits, case.kind) - weight).abs()
    assert (error <= weight_scale(weight, case.bits, case.kind) * 0.5001).all()


@law(weights, examples=60)
def weights_keep_their_order_and_their_zero(case):
    weight = case.draw()
    quantized = quantizers.quantize_weight(weight, case.bits, case.kind)
    order = weight.float().argsort(dim=1, stable=True)
    assert (quantized.gather(1, order).float().diff(dim=1) >= 0).all()
    assert (quantized[weight == 0] == 0).all()


@law(weights, examples=60)
def a_channel_is_quantized_by_itself(case):
    weight = case.draw()
    order = torch.randperm(case.channels, generator=torch.Generator().manual_seed(case.seed))
    whole = quantizers.quantize_weight(weight, case.bits, case.kind)
    assert same(quantizers.quantize_weight(weight[order], case.bits, case.kind), whole[order])
    louder = weight.clone()
    louder[0] *= 64
    assert same(quantizers.quantize_weight(louder, case.bits, case.kind)[1:], whole[1:])
    as_convolution = weight.view(case.channels, 1, 1, case.inputs)
    assert same(quantizers.quantize_weight(as_convolution, case.bits, case.kind).flatten(1), whole)

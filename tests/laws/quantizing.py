"""Laws of the quantizers of weights and activations, of calibration, and of images on disk."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from hypothesis import assume
from hypothesis import strategies as st

import smi
from laws.adapter import sized
from laws.core import law, same, seeds
from laws.inverting import runs
from smi import geometry, quantizers
from smi.vit import adapt


@dataclass(frozen=True)
class Weights:
    channels: int
    inputs: int
    bits: int
    scale: float
    shift: float
    dtype: torch.dtype
    seed: int

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
)


def weight_scale(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """By the formula: greatest magnitude over half the number of steps, per output channel."""
    flat = weight.float().flatten(1)
    return (flat.abs().amax(1) / ((2**bits - 1) / 2)).clamp_min(torch.finfo(torch.float32).eps).unsqueeze(1)


@law(weights, examples=100)
def quantized_weights_lie_on_their_channels_levels(case):
    weight = case.draw()
    quantized = quantizers.quantize_weight(weight, case.bits)
    assert quantized.shape == weight.shape and quantized.dtype == weight.dtype
    assert all(len(set(row)) <= 2**case.bits for row in quantized.tolist())
    if case.dtype == torch.float32:
        levels = quantized / weight_scale(weight, case.bits)
        assert (levels - levels.round()).abs().max() < 1e-3
        assert levels.min() > -(2 ** (case.bits - 1)) - 0.5 and levels.max() < 2 ** (case.bits - 1) - 0.5


@law(weights, examples=100)
def a_weight_moves_by_half_a_step_at_most(case):
    assume(case.dtype == torch.float32)
    weight = case.draw()
    error = (quantizers.quantize_weight(weight, case.bits) - weight).abs()
    assert (error <= weight_scale(weight, case.bits) * 0.5001).all()


@law(weights, examples=60)
def weights_keep_their_order_and_their_zero(case):
    weight = case.draw()
    quantized = quantizers.quantize_weight(weight, case.bits)
    order = weight.float().argsort(dim=1, stable=True)
    assert (quantized.gather(1, order).float().diff(dim=1) >= 0).all()
    assert (quantized[weight == 0] == 0).all()


@law(weights, examples=60)
def a_channel_is_quantized_by_itself(case):
    weight = case.draw()
    order = torch.randperm(case.channels, generator=torch.Generator().manual_seed(case.seed))
    whole = quantizers.quantize_weight(weight, case.bits)
    assert same(quantizers.quantize_weight(weight[order], case.bits), whole[order])
    louder = weight.clone()
    louder[0] *= 64
    assert same(quantizers.quantize_weight(louder, case.bits)[1:], whole[1:])
    as_convolution = weight.view(case.channels, 1, 1, case.inputs)
    assert same(quantizers.quantize_weight(as_convolution, case.bits).flatten(1), whole)


@dataclass(frozen=True)
class Activations:
    size: int
    bits: int
    scale: float
    shift: float
    dtype: torch.dtype
    seed: int

    def draw(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return ((torch.randn(self.size, generator=generator) + self.shift) * self.scale).to(self.dtype)

    def calibrated(self) -> quantizers.ActivationQuantizer:
        quantizer = quantizers.ActivationQuantizer(self.bits)
        assert same(quantizer(self.draw()), self.draw())  # while it calibrates it hands on what it sees
        quantizer.freeze("case")
        return quantizer


activations = st.builds(
    Activations,
    size=st.integers(2, 60),
    bits=st.integers(2, 8),
    scale=st.sampled_from([1e-3, 1.0, 50.0, 1e6]),
    shift=st.sampled_from([0.0, 0.0, 1.0, -1.0, 8.0, -8.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=seeds,
)


@law(activations, examples=100)
def quantizing_twice_is_quantizing_once(case):
    assume(case.dtype == torch.float32)
    quantizer = case.calibrated()
    once = quantizer(case.draw())
    torch.testing.assert_close(quantizer(once), once, rtol=1e-5, atol=1e-6 * case.scale)


@law(activations, examples=100)
def activations_take_few_values_in_order(case):
    values, quantizer = case.draw(), case.calibrated()
    quantized = quantizer(values)
    assert quantized.dtype == values.dtype and len(set(quantized.tolist())) <= 2**case.bits
    assert (quantized[values.float().argsort()].float().diff() >= 0).all()


@law(activations, examples=100)
def an_activation_moves_by_half_a_step_at_most(case):
    values = case.draw()
    assume(case.dtype == torch.float32 and values.min() <= 0 <= values.max())
    step = (values.max() - values.min()) / (2**case.bits - 1)
    assert ((case.calibrated()(values) - values).abs() <= step * 0.5001).all()


@law(activations, examples=60)
def the_range_is_the_least_and_greatest_seen(case):
    quantizer = quantizers.ActivationQuantizer(case.bits)
    values = case.draw()
    for part in values.split(7):
        quantizer(part)
    assert quantizer.low == values.min() and quantizer.high == values.max()
    quantizer.freeze("case")
    quantizer(values * 3 - case.scale)
    assert quantizer.low == values.min() and quantizer.high == values.max()  # frozen


@law(activations, examples=60)
def odd_activations_do_what_the_docstring_says(case):
    quantizer = case.calibrated()
    scale, zero = quantizer.grid()
    low, high = (0 - zero) * scale, (2**case.bits - 1 - zero) * scale
    odd = quantizer(torch.tensor([float("inf"), float("-inf"), float("nan"), 3e38, -3e38]))
    assert odd[0] == odd[3] == high and odd[1] == odd[4] == low and odd[2].isnan()
    for values in (torch.zeros(4), torch.full((4,), case.shift * case.scale + 1)):
        constant = quantizers.ActivationQuantizer(case.bits)
        constant(values)
        constant.freeze("constant")
        assert torch.isfinite(constant(values)).all()


@law(sized, examples=15)
def calibration_sees_kept_patches_only_and_leaves_the_model_alone(case):
    model = case.make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tokens, kept = adapt(model), case.kept()
    pixels = torch.rand(case.image().shape, generator=torch.Generator().manual_seed(case.seed))
    ranges = []
    for fill in (0.0, 1.0):
        canvas = torch.full_like(pixels, fill)
        geometry.put_patches(canvas, kept, geometry.take_patches(pixels, kept, tokens.grid), tokens.grid)
        images = smi.SyntheticImages(canvas, torch.zeros(2, dtype=torch.int64), kept, tokens.patch_size)
        quantized = smi.quantize(model, images, 4, 8)
        ranges.append([(q.low.item(), q.high.item()) for _, q in quantized.activation_quantizers()])
    assert ranges[0] == ranges[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@law(runs(), examples=5)
def images_come_back_from_disk_bit_for_bit(run):
    images = run.invert()
    with tempfile.TemporaryDirectory() as folder:
        images.save(Path(folder) / "images.safetensors")
        again = smi.SyntheticImages.load(Path(folder) / "images.safetensors")
    assert same(again.pixels, images.pixels) and same(again.kept, images.kept)
    assert same(again.targets, images.targets) and again.patch_size == images.patch_size
    masked = geometry.patchify(again.masked(), again.grid)
    mask = again.mask()
    assert (masked[~mask] == 0).all() and same(
        masked[mask], geometry.patchify(images.pixels, images.grid)[mask]
    )

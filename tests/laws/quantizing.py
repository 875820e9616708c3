"""Laws of the quantizers of activations, of calibration, and of images on disk."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from hypothesis import assume
from hypothesis import strategies as st

import smi
from laws.adapter import sized
from laws.core import law, same, seeds
from laws.inverting import runs
from smi import geometry, quantizers
from smi.quantization.ranges import range_of
from smi.quantization.repq import reparameterised
from smi.vit import adapt

RANGES = {"minmax": (), "percentile": (0.9,), "least_error": ()}


@dataclass(frozen=True)
class Activations:
    size: int
    bits: int
    scale: float
    shift: float
    dtype: torch.dtype
    seed: int
    grid: str = "zero_included"
    range: str = "minmax"

    def draw(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return ((torch.randn(self.size, generator=generator) + self.shift) * self.scale).to(self.dtype)

    def quantizer(self) -> quantizers.ActivationQuantizer:
        return quantizers.ActivationQuantizer(self.bits, self.grid, range_of(self.range, RANGES[self.range]))

    def calibrated(self) -> quantizers.ActivationQuantizer:
        quantizer = self.quantizer()
        assert same(quantizer(self.draw()), self.draw())  # while it calibrates it hands on what it sees
        freeze(quantizer)
        return quantizer

    @property
    def collapses(self) -> bool:
        """The published formula has no levels for a range without zero."""
        values = self.draw()
        return self.grid == "clamped_zero" and not bool(values.min() <= 0 <= values.max())


def freeze(quantizer: quantizers.ActivationQuantizer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ranges that collapse
        quantizer.freeze("case")


activations = st.builds(
    Activations,
    size=st.integers(2, 60),
    bits=st.integers(2, 8),
    scale=st.sampled_from([1e-3, 1.0, 50.0, 1e6]),
    shift=st.sampled_from([0.0, 0.0, 1.0, -1.0, 8.0, -8.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=seeds,
    grid=st.sampled_from(sorted(quantizers.GRIDS)),
    range=st.sampled_from(sorted(RANGES)),
)


@law(activations, examples=100)
def quantizing_twice_is_quantizing_once(case):
    assume(
        case.dtype == torch.float32 and case.grid != "floor"
    )  # rounding down, a level may fall to the next
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
    assume(case.dtype == torch.float32 and case.range == "minmax" and not case.collapses)
    low, high = values.min(), values.max()
    if case.grid == "zero_included":
        low, high = low.clamp_max(0), high.clamp_min(0)
    step = (high - low) / (2**case.bits - 1)
    most = 1.0001 if case.grid == "floor" else 0.5001
    slack = 4 * torch.finfo(torch.float32).eps * values.abs().max()
    assert ((case.calibrated()(values) - values).abs() <= step * most + slack).all()


@law(activations, examples=60)
def the_range_is_the_least_and_greatest_seen(case):
    assume(case.range == "minmax" and case.grid != "zero_included")
    quantizer = case.quantizer()
    values = case.draw()
    for part in values.split(7):
        quantizer(part)
    assert quantizer.low == values.min() and quantizer.high == values.max()
    freeze(quantizer)
    quantizer(values * 3 - case.scale)
    assert quantizer.low == values.min() and quantizer.high == values.max()  # frozen


@law(activations, examples=60)
def zero_is_a_level_where_it_is_included(case):
    assume(case.grid == "zero_included")
    quantizer = case.calibrated()
    assert quantizer(torch.zeros(1)) == 0 and quantizer.low <= 0 <= quantizer.high
    assert quantizer.zero == quantizer.zero.round() and 0 <= quantizer.zero < 2**case.bits


@law(activations, examples=60)
def a_range_of_least_error_is_no_worse_than_the_widest(case):
    assume(case.dtype == torch.float32)
    values, error = case.draw(), {}
    for kind in ("minmax", "least_error"):
        quantizer = replace(case, range=kind).calibrated()
        error[kind] = (quantizer(values) - values).square().mean()
    assert error["least_error"] <= error["minmax"] * 1.0001


@law(activations, examples=60)
def channels_are_calibrated_apart(case):
    rows = torch.stack([case.draw().float(), 64 * case.draw().float().flip(0)], dim=1)
    kind, percentiles = case.range, RANGES[case.range]
    both = quantizers.ActivationQuantizer(
        case.bits, "free_zero", range_of(kind, percentiles), per_channel=True
    )
    both(rows)
    freeze(both)
    swapped = quantizers.ActivationQuantizer(
        case.bits, "free_zero", range_of(kind, percentiles), per_channel=True
    )
    swapped(rows.flip(1))
    freeze(swapped)
    assert same(swapped(rows.flip(1)), both(rows).flip(1))
    for channel in range(2):
        alone = quantizers.ActivationQuantizer(case.bits, "free_zero", range_of(kind, percentiles))
        alone(rows[:, channel])
        freeze(alone)
        assert same(alone(rows[:, channel]), both(rows)[:, channel])


@law(activations, examples=60)
def odd_activations_do_what_the_docstring_says(case):
    quantizer = case.calibrated()
    low, high = -quantizer.zero * quantizer.scale, (2**case.bits - 1 - quantizer.zero) * quantizer.scale
    odd = quantizer(torch.tensor([float("inf"), float("-inf"), float("nan"), 3e38, -3e38]))
    ends = torch.stack([high, low, high, low])
    torch.testing.assert_close(odd[[0, 1, 3, 4]], ends, rtol=1e-4, atol=1e-4 * float(quantizer.scale))
    assert odd[2].isnan()
    for values in (torch.zeros(4), torch.full((4,), case.shift * case.scale + 1), torch.full((4,), 1e-30)):
        constant = case.quantizer()
        constant(values)
        freeze(constant)
        assert torch.isfinite(constant(values)).all()
        if case.grid in ("zero_included", "free_zero"):
            torch.testing.assert_close(constant(values), values, rtol=1e-5, atol=0)


@law(activations, examples=60)
def log_sqrt2_goes_by_powers_of_sqrt2(case):
    """Levels, order, and that a value on the grid stays: for what a softmax gives."""
    assume(case.dtype == torch.float32)
    values = (case.draw() / case.scale).softmax(0)
    quantizer = quantizers.LogSqrt2Quantizer(case.bits, range_of(case.range, RANGES[case.range]))
    quantizer(values)
    freeze(quantizer)
    quantized = quantizer(values)
    assert len(set(quantized.tolist())) <= 2**case.bits + 1  # and zero
    assert (quantized[values.argsort()].diff() >= 0).all()
    torch.testing.assert_close(quantizer(quantized), quantized)
    inside = (quantized > 0) & (values <= quantizer.scale)
    ratio = (quantized / values)[inside]
    assert ((ratio > 2**-0.2501) & (ratio < 2**0.2501)).all()
    assert quantizer(torch.tensor([float("nan")])).isnan() and quantizer(torch.zeros(1)) == 0


recipes = st.sampled_from(sorted(smi.QUANTIZERS))


@law(st.tuples(sized, recipes), examples=30)
def calibration_sees_kept_patches_only_and_leaves_the_model_alone(drawn):
    case, name = drawn
    model = case.make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tokens, kept = adapt(model), case.kept()
    pixels = torch.rand(case.image().shape, generator=torch.Generator().manual_seed(case.seed))
    ranges = []
    for fill in (0.0, 1.0):
        canvas = torch.full_like(pixels, fill)
        geometry.put_patches(canvas, kept, geometry.take_patches(pixels, kept, tokens.grid), tokens.grid)
        images = smi.SyntheticImages(canvas, torch.zeros(2, dtype=torch.int64), kept, tokens.patch_size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ranges that collapse
            quantized = smi.quantize(model, images, 4, 8, quantizer=name)
        ranges.append([(q.low.item(), q.high.item()) for _, q in quantized.activation_quantizers()])
    assert ranges[0] == ranges[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@law(st.tuples(sized, recipes), examples=20)
def ranges_are_seen_in_full_precision_unless_they_are_sequential(drawn):
    case, name = drawn
    model, kept = case.make(), case.kept()
    assume(not smi.QUANTIZERS[name].sequential)
    pixels = torch.rand(case.image().shape, generator=torch.Generator().manual_seed(case.seed))
    images = smi.SyntheticImages(pixels, torch.zeros(2, dtype=torch.int64), kept, adapt(model).patch_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ranges that collapse
        coarse, fine = (smi.quantize(model, images, bits, 8, quantizer=name) for bits in (2, 8))
    for (_, one), (_, other) in zip(
        coarse.activation_quantizers(), fine.activation_quantizers(), strict=True
    ):
        assert same(one.low, other.low) and same(one.high, other.high)


@law(sized, examples=20)
@torch.no_grad()
def reparameterisation_changes_ranges_and_nothing_else(case):
    """Whatever the ranges of the channels are, dead ones too."""
    model = case.make()
    generator = torch.Generator().manual_seed(case.seed)
    fits = {}
    for index in range(case.depth):
        for place in ("norm1_out", "norm2_out"):
            low = torch.randn(8 * case.heads, generator=generator)
            spread = torch.rand(low.shape, generator=generator) * 3
            spread[0] = 0
            fits[f"blocks.{index}.{place}"] = quantizers.fit_uniform(low, low + spread, 4, "free_zero")
    changed, whole = reparameterised(model, fits)
    torch.testing.assert_close(changed(case.image()), model(case.image()), rtol=1e-3, atol=1e-4)
    assert whole.keys() == fits.keys() and all(one.ndim == 0 for fit in whole.values() for one in fit)
    assert all(torch.isfinite(torch.stack(fit)).all() for fit in whole.values())


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

"""smi.quantize through its public face: a copy, calibrated through kept patches; what it refuses."""

import copy
import warnings

import pytest
import torch
from safetensors.torch import load_model, save_model

import smi
from smi.quantizers import GRIDS, ActivationQuantizer, quantize_weight


def lively(model):
    """Weights large enough for CLS to take part: timm starts it at 1e-6, which no quantizer would see."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model


def images_for(model, count: int = 4, kept: bool = False, seed: int = 0) -> smi.SyntheticImages:
    generator = torch.Generator().manual_seed(seed)
    grid = smi.vit.adapt(model).grid
    pixels = torch.rand(count, 3, grid.height, grid.width, generator=generator)
    chosen = (
        torch.rand(count, grid.patches, generator=generator).argsort(1)[:, :5].sort(1).values
        if kept
        else None
    )
    return smi.SyntheticImages(pixels, torch.zeros(count, dtype=torch.int64), chosen, (4, 4))


def test_gives_a_copy_and_leaves_the_model_alone(tiny_vit):
    model = tiny_vit().train()
    before = copy.deepcopy(model)
    small = smi.quantize(model, images_for(model), 4, 8)
    assert all(
        a.equal(b) for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True)
    )
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not set(map(id, model.parameters())) & set(map(id, small.parameters()))
    assert not small.train().training


@pytest.mark.parametrize(
    "overrides",
    [{}, {"reg_tokens": 2}, {"init_values": 0.5}, {"qk_norm": True}, {"no_embed_class": True}, {"img_size": (16, 24)},
     {"class_token": False, "global_pool": "avg"}, {"pos_embed": "none"}],
)  # fmt: skip
def test_without_rounding_it_is_the_model(tiny_vit, overrides):
    """While it calibrates nothing is quantized yet: every part of the model is in its place, on kept patches too."""
    model = lively(tiny_vit(**overrides))
    images = images_for(model, 4, kept=True)
    with torch.no_grad():
        small = smi.QuantizedViT(model, 8, 8)
        through_kept = smi.vit.adapt(model).forward(images.pixels, images.kept)
        with small.calibrating():
            torch.testing.assert_close(small(images.pixels), model(images.pixels))
            torch.testing.assert_close(small(images.pixels, images.kept), through_kept)


def test_a_quantized_convolution_has_the_geometry_of_its_own(tiny_vit):
    model = tiny_vit()
    small = smi.quantize(model, images_for(model))
    ours, wanted = small.model.patch_embed.proj, model.patch_embed.proj
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
        assert getattr(ours, name) == getattr(wanted, name), name


def test_more_bits_less_error(tiny_vit):
    model = lively(tiny_vit())
    images = images_for(model, 16)
    mean, std = smi.vit.normalisation(model)
    inputs = (images.pixels - mean) / std
    with torch.no_grad():
        exact = model(inputs)
        coarse, fine = (float((smi.quantize(model, images, k, k)(inputs) - exact).norm()) for k in (4, 8))
    assert fine < 0.3 * coarse and fine < 0.2 * float(exact.norm())


def test_weights_take_few_values_per_channel(tiny_vit):
    model = tiny_vit()
    small = smi.quantize(model, images_for(model), 3, 8)
    for layer in (small.model.patch_embed.proj, small.blocks[1].mlp.fc2, small.model.head):
        assert max(len(row.unique()) for row in layer.weight.flatten(1)) <= 8
    assert len(small.blocks[0].norm1.weight.unique()) == 1  # LayerNorm stays


def test_a_saved_model_is_the_same_when_it_is_loaded(tiny_vit, tmp_path):
    model = lively(tiny_vit())
    small = smi.quantize(model, images_for(model), 4, 8)
    torch.save(small.state_dict(), tmp_path / "small.pt")
    other = smi.QuantizedViT(tiny_vit(seed=1), 4, 8)
    other.load_state_dict(torch.load(tmp_path / "small.pt", weights_only=True))
    pictures = (
        2 * images_for(model, seed=1).pixels
    )  # beyond the ranges: would move them if they were not frozen
    assert other(pictures).equal(small(pictures)) and other(pictures / 2).equal(small(pictures / 2))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"quantizer": "slides"}, "W4/A8, quantizer slides, this model is W4/A8, quantizer psaq"),
        ({"weight_bits": 8}, "W8/A8"),
        ({"activation_bits": 4}, "W4/A4"),
        ({"deviations": ["whole_stem"]}, "whole_stem"),
    ],
)
def test_a_state_that_was_made_otherwise_is_refused(tiny_vit, made, said):
    model = tiny_vit()
    state = smi.quantize(model, images_for(model), **made).state_dict()
    with pytest.raises(smi.InvalidSetting, match=said):
        smi.QuantizedViT(model, 4, 8).load_state_dict(state)


def test_a_state_is_tensors_alone(tiny_vit, tmp_path):
    model = lively(tiny_vit())
    small = smi.quantize(model, images_for(model))
    save_model(small, str(tmp_path / "small.safetensors"))
    other = smi.QuantizedViT(tiny_vit(seed=1), 4, 8)
    load_model(other, tmp_path / "small.safetensors")
    pictures = images_for(model, seed=1).pixels
    assert other(pictures).equal(small(pictures))


def test_a_callers_autocast_is_not_the_calibrations(tiny_vit):
    model = lively(tiny_vit())
    plain = smi.quantize(model, images_for(model)).state_dict()
    with torch.autocast("cpu", torch.bfloat16):
        state = smi.quantize(model, images_for(model)).state_dict()
    assert all(value.equal(plain[name]) for name, value in state.items())


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True])
def test_bad_batch_sizes_are_named(tiny_vit, batch_size):
    model = tiny_vit()
    with pytest.raises(smi.InvalidSetting, match=f"batch_size is {batch_size}; allowed: a whole number >= 1"):
        smi.quantize(model, images_for(model), batch_size=batch_size)


def test_a_range_wider_than_float32_is_noticed():
    quantizer = ActivationQuantizer(8)
    quantizer(torch.tensor([-3e38, 3e38]))
    with pytest.raises(smi.InvalidImages, match="saw the range"):
        quantizer.freeze("sum1")


def test_images_and_kept_patches_must_fit_each_other(tiny_vit):
    model = tiny_vit()
    small, kept = smi.quantize(model, images_for(model)), torch.tensor([[0, 3], [1, 2]])
    for shape in ((2, 3, 32, 32), (3, 3, 16, 16)):
        with pytest.raises(smi.InvalidImages, match="they must fit each other"):
            small(torch.rand(shape), kept)


def test_batches_of_calibration_do_not_matter(tiny_vit):
    model = tiny_vit()
    images = images_for(model, 7, kept=True)
    whole, parts = (smi.quantize(model, images, 8, 8, batch_size=n) for n in (None, 2))
    for (_, a), (_, b) in zip(whole.activation_quantizers(), parts.activation_quantizers(), strict=True):
        torch.testing.assert_close(torch.stack([a.low, a.high]), torch.stack([b.low, b.high]))


@pytest.mark.parametrize("bits", [1, 9, 0, -4, 4.0, "8", True, None])
def test_bit_widths_out_of_range_are_refused(tiny_vit, bits):
    model = tiny_vit()
    for arguments in ({"weight_bits": bits}, {"activation_bits": bits}):
        with pytest.raises(smi.InvalidSetting, match="allowed: whole numbers 2 to 8"):
            smi.quantize(model, images_for(model), **arguments)


def test_images_that_do_not_fit_are_refused(tiny_vit):
    model = tiny_vit()
    with pytest.raises(smi.InvalidImages, match=r"the model takes \[3, 16, 16\]"):
        smi.quantize(model, images_for(tiny_vit(img_size=24)))
    for wrong in ("images.safetensors", torch.rand(4, 3, 16, 16)):
        with pytest.raises(smi.InvalidImages, match="allowed: SyntheticImages"):
            smi.quantize(tiny_vit(), wrong)
    with pytest.raises(smi.InvalidImages, match="at least 1"):
        smi.quantize(model, images_for(model).select(slice(0, 0)))
    other_patches = smi.SyntheticImages(
        torch.rand(1, 3, 16, 16), torch.tensor([0]), torch.tensor([[0]]), (8, 8)
    )
    with pytest.raises(smi.InvalidImages, match="kept patches are of"):
        smi.quantize(model, other_patches)


def test_a_model_that_gives_nan_is_noticed(tiny_vit):
    model = tiny_vit()
    with torch.no_grad():
        model.blocks[1].mlp.fc1.bias[0] = float("nan")
    with pytest.raises(smi.InvalidImages, match=r"calibration of blocks\.1"):
        smi.quantize(model, images_for(model))


def test_models_without_a_placement_are_refused_by_name(tiny_vit):
    images = smi.SyntheticImages(torch.rand(1, 3, 224, 224), torch.tensor([0]))
    with pytest.raises(smi.UnsupportedModel, match=r"blocks\.0\.attn\.norm"):
        smi.quantize(tiny_vit(scale_attn_norm=True), images)


def test_edge_weights():
    """All-zero, constant, tiny and huge channels stay finite; zero stays zero."""
    rows = torch.stack([torch.zeros(8), torch.full((8,), 3.0), torch.full((8,), -3.0), torch.full((8,), 1e-30),
                        torch.full((8,), 1e30), torch.linspace(-1, 1, 8)])  # fmt: skip
    for bits in (2, 4, 8):
        quantized = quantize_weight(rows, bits)
        assert quantized.isfinite().all() and not quantized[0].any()


def test_edge_activations():
    """A constant range is degenerate: the value is kept within the float32 epsilon's grid, never NaN."""
    for values in (torch.zeros(9), torch.full((9,), -2.5), torch.full((9,), 1e30), torch.linspace(1, 2, 9)):
        for grid in GRIDS:
            quantizer = calibrated(values, 4, grid)
            assert quantizer(values).isfinite().all()
    assert quantizer(torch.tensor([float("nan")])).isnan().all()


def test_the_slides_formula_goes_down_by_up_to_a_step(tiny_vit):
    values = torch.linspace(-1.3, 2.1, 101)
    for quantized, bits in (
        (quantize_weight(values.view(1, -1), 4, "floor").flatten(), 4),
        (calibrated(values, 8, "floor")(values), 8),
    ):
        step = 3.4 / (2**bits - 1)
        assert (quantized <= values + 1e-5).all() and (values - quantized < step * 1.001).all()
        assert len(quantized.unique()) <= 2**bits
    assert calibrated(values, 4, "floor")(torch.tensor([-9.0, 9.0])).tolist() == pytest.approx([-1.3, 2.1])


def test_the_slides_formula_takes_one_range_for_all_channels():
    rows = torch.stack([torch.linspace(-1, 1, 9), torch.linspace(-0.01, 0.01, 9)])
    assert len(quantize_weight(rows, 4, "floor")[1].unique()) <= 2
    assert len(quantize_weight(rows, 4)[1].unique()) > 2


def test_the_recipe_reaches_every_quantizer(tiny_vit):
    model = lively(tiny_vit())
    images = images_for(model, 4)
    slides, published = (smi.quantize(model, images, 4, 4, quantizer=f) for f in ("slides", "psaq"))
    assert {q.grid for _, q in slides.activation_quantizers()} == {"floor"}
    assert not torch.allclose(slides(images.pixels), published(images.pixels))
    with pytest.raises(
        smi.InvalidSetting, match="unknown quantizer 'paper'; allowed: psaq, slides, minmax_inputs"
    ):
        smi.quantize(model, images, quantizer="paper")


def calibrated(values, bits, grid):
    quantizer = ActivationQuantizer(bits, grid)
    quantizer(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ranges that collapse
        quantizer.freeze("test")
    return quantizer

"""Quantizers by name and composed by hand, on every kind of model that smi.quantize takes; what it refuses."""

import copy
import json
import warnings

import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import smi
from smi.quantization import PLACEMENTS
from smi.vit import adapt

NAMES = sorted(smi.QUANTIZERS)
KINDS = {
    "registers": {"reg_tokens": 2},
    "layer_scale": {"init_values": 0.5},
    "qk_norm": {"qk_norm": True},
    "average_pool": {"global_pool": "avg"},
    "non_square": {"img_size": (16, 24)},
    "no_bias": {"qkv_bias": False},
    "no_positions": {"pos_embed": "none"},
    "distilled": {"cls": VisionTransformerDistilled},
    "backbone": {"num_classes": 0},
    "distilled_backbone": {"cls": VisionTransformerDistilled, "num_classes": 0},
}


def vit(cls=VisionTransformer, **overrides) -> VisionTransformer:
    settings = {
        "img_size": 16,
        "patch_size": 4,
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "num_classes": 5,
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = cls(**{**settings, **overrides}).eval()
        for parameter in model.parameters():  # timm's small weights would hide mistakes
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.3)
    return model


def images_for(model, count=8, kept=False):
    grid, generator = adapt(model, headless=True).grid, torch.Generator().manual_seed(0)
    pixels = torch.rand(count, 3, grid.height, grid.width, generator=generator)
    order = torch.rand(count, grid.patches, generator=generator).argsort(1)
    chosen = order[:, :5].sort(1).values if kept else None
    return smi.SyntheticImages(pixels, torch.zeros(count, dtype=torch.int64), chosen, (4, 4))


def inputs_of(images):
    return (images.pixels - 0.5) / 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_quantizer_takes_every_kind_of_model(kind, name):
    model = vit(**KINDS[kind])
    images = images_for(model)
    with torch.no_grad():
        exact = model(inputs_of(images))
        error = {
            k: smi.quantize(model, images, k, k, quantizer=name)(inputs_of(images)) - exact for k in (4, 8)
        }
    allowed = 0.6 if name == "slides" else 0.35  # it always rounds down
    assert error[8].shape == exact.shape and error[8].norm() < allowed * exact.norm()
    assert error[8].norm() < error[4].norm()


@pytest.mark.parametrize("name", NAMES)
def test_a_state_brings_integers_and_ranges(name):
    model = vit(qkv_bias=False)
    images = images_for(model, kept=True)
    small = smi.quantize(model, images, 4, 6, quantizer=name)
    other = smi.QuantizedViT(vit(qkv_bias=False, num_heads=2), 4, 6, name)
    other.load_state_dict(small.state_dict())
    assert other.calibrated and other(inputs_of(images)).equal(small(inputs_of(images)))
    assert other(inputs_of(images), images.kept).equal(small(inputs_of(images), images.kept))


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_integers_with_a_scale_a_channel(name):
    model = vit()
    small = smi.quantize(model, images_for(model), 3, 8, quantizer=name)
    layers = dict(small.layers())
    assert layers.keys() == {
        "patch_embed.proj",
        "head",
        *(f"blocks.{i}.{n}" for i in range(2) for n in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")),
    }
    for layer in layers.values():
        codes, scale, zero, offset = layer.integers
        assert codes.dtype == torch.int8 and codes.shape == layer.weight.shape
        assert codes.min() >= -4 and codes.max() <= 3
        assert scale.shape == (len(codes), *[1] * (codes.ndim - 1))
        assert layer.weight.equal((codes - zero) * scale + offset)


def test_the_sum_of_the_parts_is_the_placement():
    model = vit()
    for name in NAMES:
        small = smi.quantize(model, images_for(model), quantizer=name)
        places = {place.rpartition(".")[2] for place, _ in small.activation_quantizers()}
        assert places == set(PLACEMENTS[smi.QUANTIZERS[name].placement]) - {"normed_dist"}


def test_a_quantizer_of_ones_own():
    model = vit()
    mine = smi.Quantizer(
        "mine", placement=("image", "sum1"), range="percentile", percentiles=0.99, weights="asymmetric"
    )
    small = smi.quantize(model, images_for(model), 4, 4, quantizer=mine)
    named = {place: q.bits for place, q in small.activation_quantizers()}
    assert named == {"quantizers.image": 4, "blocks.0.sum1": 4, "blocks.1.sum1": 4}
    assert smi.Quantizer.from_json(json.loads(json.dumps(mine.to_json()))) == mine
    wider = smi.quantizer("percentile_inputs", name="wider", percentiles=(0.9999,))
    ranges = [
        dict(smi.quantize(model, images_for(model), quantizer=q).activation_quantizers())["quantizers.image"]
        for q in (wider, "percentile_inputs")
    ]
    assert ranges[0].scale > ranges[1].scale


def test_images_of_repq_have_eight_bits():
    model = vit()
    bits = {
        place: q.bits
        for place, q in smi.quantize(model, images_for(model), 4, 4, quantizer="repq").activation_quantizers()
    }
    assert bits.pop("quantizers.image") == 8 and set(bits.values()) == {4}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"placement": "everywhere"}, "placement is 'everywhere'; allowed: psaq, inputs, operands"),
        ({"placement": ("image", "sum3")}, "allowed: places of image"),
        ({"range": "widest"}, "unknown range of quantizer mine 'widest'; allowed: minmax, percentile"),
        ({"range": "percentile"}, "exactly one"),
        ({"percentiles": (0.99,)}, "none with range 'minmax'"),
        ({"range": "percentile", "percentiles": 99.9}, "numbers above .5"),
        ({"grid": "coarse"}, "unknown grid"),
        ({"weights": "none"}, "unknown weights"),
        ({"softmax": "log2"}, "unknown softmax"),
        ({"sequential": 1}, "sequential is 1; allowed: true or false"),
        ({"reparameterise": True}, "free_zero with reparameterise"),
        ({"reparameterise": True, "grid": "free_zero", "placement": ("image",)}, "norm1_out and norm2_out"),
        ({"image_bits": 16}, "image_bits of quantizer mine is 16"),
    ],
)
def test_what_makes_no_sense_is_refused(values, message):
    with pytest.raises(smi.InvalidSetting, match=message) as refusal:
        smi.Quantizer("mine", **values)
    assert "\n" not in str(refusal.value)


def test_unknown_names_and_fields_are_refused():
    for call in (
        lambda: smi.quantizer("psaq2"),
        lambda: smi.quantizer(None),
        lambda: smi.quantizer("psaq", bits=4),
        lambda: smi.Quantizer.from_json({"name": "mine", "bits": 4}),
        lambda: smi.Quantizer.from_json({}),
    ):
        with pytest.raises(smi.InvalidSetting):
            call()


def test_ranges_are_those_of_the_model_in_full_precision():
    """Weights are rounded after the calibration: what their bits are does not move a range."""
    model = vit()
    images = images_for(model)

    def ranges(bits, name):
        small = smi.quantize(model, images, bits, 8, quantizer=name)
        return {place: (float(q.low), float(q.high)) for place, q in small.activation_quantizers()}

    for name in ("psaq", "slides", "minmax_inputs", "percentile_inputs", "mse_inputs"):
        assert ranges(2, name) == ranges(8, name)
    assert ranges(2, "repq") != ranges(8, "repq")  # each layer sees quantized inputs


def test_sequential_quantizers_take_all_images_at_once():
    model = vit()
    with pytest.raises(
        smi.InvalidSetting, match="quantizer repq is sequential and calibrates on all 8 images"
    ):
        smi.quantize(model, images_for(model), quantizer="repq", batch_size=4)
    for name in ("percentile_inputs", "mse_inputs"):
        whole, parts = (
            dict(smi.quantize(model, images_for(model), quantizer=name, batch_size=n).activation_quantizers())
            for n in (None, 3)
        )
        for place, one in whole.items():
            torch.testing.assert_close(parts[place].scale, one.scale, rtol=1e-4, atol=1e-6)


def test_norms_that_cannot_take_the_factors_are_named():
    model = vit(norm_layer=lambda width, **_: nn.LayerNorm(width, elementwise_affine=False))
    with pytest.raises(
        smi.UnsupportedModel, match=r"blocks\.0\.norm1 is a LayerNorm without weight and bias"
    ):
        smi.quantize(model, images_for(model), quantizer="repq")


@pytest.mark.parametrize("name", NAMES)
def test_models_of_inference_mode_are_taken(name):
    plain = vit()
    with torch.inference_mode():
        model = vit()
        inside = smi.quantize(model, images_for(model), 4, 4, quantizer=name)
    outside = smi.quantize(model, images_for(plain), 4, 4, quantizer=name)
    wanted = smi.quantize(plain, images_for(plain), 4, 4, quantizer=name)
    inputs = inputs_of(images_for(plain))
    for small in (inside, outside):
        assert small(inputs).equal(wanted(inputs))
        small.load_state_dict(wanted.state_dict())  # in place: what it holds are plain tensors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_refused_by_name(dtype):
    model = vit().to(dtype)
    with pytest.raises(smi.UnsupportedModel, match=f"is {str(dtype)[6:]}; only float32 models") as refusal:
        smi.quantize(model, images_for(vit()))
    assert "\n" not in str(refusal.value)


def test_another_default_dtype_changes_nothing():
    model = vit()
    images = images_for(model)
    wanted = smi.quantize(model, images).state_dict()
    torch.set_default_dtype(torch.float64)
    try:
        state = smi.quantize(model, images).state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(state[key].equal(value) and state[key].dtype == value.dtype for key, value in wanted.items())


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_parametrized_weight_is_quantized_as_what_it_is(wrap):
    model = vit()
    for layer in (model.blocks[0].mlp.fc1, model.blocks[1].attn.qkv):
        wrap(layer)
        with torch.no_grad():
            next(layer.parametrizations.parameters()).mul_(1.7)
    model.eval()
    before = copy.deepcopy(model.state_dict())
    plain = vit()
    for index, part in ((0, "mlp.fc1"), (1, "attn.qkv")):
        layer, source = plain.blocks[index].get_submodule(part), model.blocks[index].get_submodule(part)
        layer.weight = nn.Parameter(source.weight.detach().clone())
    for name in NAMES:
        ours, wanted = (smi.quantize(m, images_for(plain), 2, 8, quantizer=name) for m in (model, plain))
        inputs = inputs_of(images_for(plain))
        torch.testing.assert_close(ours(inputs), wanted(inputs))
        assert all(len(row.unique()) <= 4 for row in ours.blocks[0].mlp.fc1.weight) or name == "slides"
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
@pytest.mark.parametrize(
    ("compute", "remedy"),
    [
        (lambda layer: prune.l1_unstructured(layer, "weight", 0.3), "prune.remove"),
        (lambda layer: prune.l1_unstructured(layer, "bias", 0.3), "prune.remove"),
        (weight_norm, "remove_weight_norm"),
        (spectral_norm, "remove_spectral_norm"),
    ],
)
def test_weights_computed_by_hooks_are_refused_with_the_remedy(compute, remedy):
    model = vit()
    compute(model.blocks[1].attn.proj)
    with pytest.raises(smi.UnsupportedModel, match=rf"blocks\.1\.attn\.proj: .*{remedy}"):
        smi.quantize(model, images_for(vit()))


class LoRA(nn.Linear):
    def forward(self, x):
        return super().forward(x) + x.sum()


def own_forward(model):
    attention = model.blocks[0].attn
    attention.forward = lambda x, **_: x


class Attention(nn.Module):
    """Shares no more than the name."""

    def __init__(self, attention):
        super().__init__()
        self.__dict__.update(attention.__dict__)

    def forward(self, x, **_):
        return x


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m.blocks[0].mlp, "fc1", LoRA(16, 64)), r"blocks\.0\.mlp\.fc1 is a LoRA"),
        (lambda m: setattr(m, "head", LoRA(16, 5)), "head is a LoRA"),
        (lambda m: m.blocks[1].register_forward_hook(lambda *_: None), r"blocks\.1 has forward hooks"),
        (lambda m: m.patch_embed.register_forward_pre_hook(lambda *_: None), "patch_embed has forward hooks"),
        (own_forward, r"blocks\.0\.attn has a forward\(\) of its own"),
        (lambda m: setattr(m, "pool", lambda x: x), r"the model has a pool\(\) of its own"),
        (
            lambda m: setattr(m.blocks[0], "attn", Attention(m.blocks[0].attn)),
            r"blocks\.0\.attn is a Attention",
        ),
        (lambda m: m.head.weight.data.fill_(float("nan")), "head has a weight that is not finite"),
    ],
)
def test_what_a_copy_would_leave_out_is_refused_by_name(change, message):
    model = vit()
    change(model)
    with pytest.raises(smi.UnsupportedModel, match=message):
        smi.quantize(model, images_for(vit()))


def test_an_uncalibrated_model_refuses_and_its_ranges_stay():
    model = vit()
    small = smi.QuantizedViT(model, 4, 8)
    with pytest.raises(smi.NotCalibrated, match="smi.quantize"):
        small(inputs_of(images_for(model)))
    assert all(q.calibrating and q.low == float("inf") for _, q in small.activation_quantizers())
    with small.calibrating():
        small(inputs_of(images_for(model)))
    with pytest.raises(smi.NotCalibrated):  # its weights are not quantized, nor its ranges frozen
        small(inputs_of(images_for(model)))


@pytest.mark.parametrize(
    "image",
    [
        torch.rand(3, 16, 16),
        torch.rand(2, 3, 16, 32),
        torch.rand(2, 3, 32, 8),  # as many pixels
        torch.rand(2, 12, 8, 8),
        torch.rand(2, 1, 16, 16),
        torch.zeros(2, 3, 16, 16, dtype=torch.uint8),
    ],
)
def test_images_of_another_shape_are_refused(image):
    model = vit()
    small = smi.quantize(model, images_for(model))
    with pytest.raises(smi.InvalidImages, match=r"the model takes float32 \[B, 3, 16, 16\]"):
        small(image)


@pytest.mark.parametrize(
    "kept",
    [torch.tensor([[16]]), torch.tensor([[-1]]), torch.tensor([0]), torch.tensor([[0.0]]), torch.zeros(1, 0)],
)
def test_kept_patches_that_are_none_are_refused(kept):
    model = vit()
    with pytest.raises(smi.InvalidImages, match="kept patches"):
        smi.quantize(model, images_for(model))(torch.zeros(1, 3, 16, 16), kept)


def test_the_published_formula_warns_where_a_range_holds_no_zero():
    model, white = vit(), images_for(vit())
    white = smi.SyntheticImages(white.pixels / 10 + 0.9, white.targets)
    with pytest.warns(UserWarning, match=r"quantizers\.image was calibrated on .* levels from zero only"):
        collapsed = smi.quantize(model, white, 8, 8)
    inputs, patches = inputs_of(white), smi.geometry.patchify(inputs_of(white), adapt(model).grid)
    assert len(collapsed.quantizers["image"](patches).unique()) <= 16
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in set(NAMES) - {"psaq"}:
            small = smi.quantize(model, white, 8, 8, quantizer=name)
            with torch.no_grad():
                assert (small(inputs) - model(inputs)).norm() < 0.5 * model(inputs).norm(), name


@pytest.mark.parametrize("replaced", ["head", "head_dist"])
@pytest.mark.parametrize("other", [nn.Linear(16, 3), nn.Identity()])
def test_two_heads_that_do_not_fit_are_refused(replaced, other):
    model = vit(VisionTransformerDistilled)
    setattr(model, replaced, other)
    with pytest.raises(smi.UnsupportedModel, match="two heads of VisionTransformerDistilled have"):
        smi.quantize(model, images_for(model))


def test_a_distilled_model_answers_by_both_heads():
    model = vit(VisionTransformerDistilled)
    images = images_for(model)
    small = smi.quantize(model, images, 8, 8, quantizer="minmax_inputs")
    assert {"quantizers.normed", "quantizers.normed_dist"} <= dict(small.activation_quantizers()).keys()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.head_dist.weight.neg_()
        moved = smi.quantize(other, images, 8, 8, quantizer="minmax_inputs")(inputs_of(images))
        torch.testing.assert_close(moved, other(inputs_of(images)), rtol=0.1, atol=0.2)
        assert not torch.allclose(moved, small(inputs_of(images)), atol=0.2)

"""Quantizers by name and composed by hand, on every kind of model that smi.quantize takes; what makes no sense."""

import copy
import json

import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from torch import nn
from vits_to_quantize import images_for, inputs_of, vit

import smi
from smi.quantization import PLACEMENTS

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

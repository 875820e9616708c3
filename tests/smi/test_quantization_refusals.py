"""Models, images and states that smi.quantize and QuantizedViT refuse by name, and weights that are computed."""

import copy
import warnings

import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from vits_to_quantize import images_for, inputs_of, vit

import smi
from smi.vit import adapt

NAMES = sorted(smi.QUANTIZERS)


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


class Doubled(nn.Linear):
    """Multiplies by another weight than its parameter."""


Doubled.weight = property(lambda layer: 2 * layer._parameters["weight"])


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
        (lambda m: setattr(m.blocks[1].attn.qkv, "__class__", Doubled), r"blocks\.1\.attn\.qkv is a Doubled"),
        (lambda m: m.blocks[1].register_forward_hook(lambda *_: None), r"blocks\.1 has hooks"),
        (lambda m: m.patch_embed.register_forward_pre_hook(lambda *_: None), "patch_embed has hooks"),
        (lambda m: m.norm.register_full_backward_hook(lambda *_: None), "norm has hooks"),
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
    with pytest.raises(smi.UnsupportedModel, match="VisionTransformerDistilled: head.* head_dist"):
        smi.quantize(model, images_for(model))

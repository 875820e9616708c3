"""Dense inversion of CNNs with BatchNorm: DeepInversion in full, from torchvision and timm."""

import pytest
import timm
import torch
import torchvision
from torch.testing import assert_close

import smi
from smi.cnn import ConvModel
from smi.objectives import TERMS, Step

SMALL = {"input_size": (3, 32, 32), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}


def resnet(source: str = "timm", seed: int = 0, classes: int = 4) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = (
            timm.create_model("resnet18", num_classes=classes)
            if source == "timm"
            else torchvision.models.resnet18(num_classes=classes)
        )
        model.pretrained_cfg = {**(getattr(model, "pretrained_cfg", None) or {}), **SMALL}
        blobs = torch.nn.functional.interpolate(torch.randn(32, 3, 4, 4), size=32, mode="bilinear")
        for layer in model.modules():  # statistics of smooth pictures, as if it had been trained on them
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0
        with torch.no_grad():
            model.train()(blobs)
        return model


@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_resnet18_is_inverted_and_left_alone(source):
    model = resnet(source).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = smi.invert(model, 2, smi.recipe("deepinversion_bn", iterations=4, warmup=1), seed=0)
    assert images.pixels.shape == (2, 3, 32, 32) and images.kept is None
    assert images.pixels.min() >= 0 and images.pixels.max() <= 1
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = smi.invert(model, 2, smi.recipe("deepinversion_bn", iterations=4, warmup=1), seed=0)
    assert torch.equal(images.pixels, again.pixels)


def test_statistics_are_those_of_every_batchnorm_in_forward_order():
    model = resnet().eval()
    inputs = {}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, given, name=name: inputs.update({name: given[0]}))
    view = torch.randn(3, 3, 32, 32)
    statistics = ConvModel(model).observe(view, None, frozenset({"batchnorm"}))["batchnorm"]
    inputs.clear()
    model(view)
    assert len(statistics) == len(layers) == 20 and next(iter(inputs)) == "bn1"
    for (name, features), (mean, variance, running_mean, running_variance) in zip(
        inputs.items(), statistics, strict=True
    ):
        assert_close(mean, features.mean((0, 2, 3)))
        assert_close(variance, features.var((0, 2, 3), unbiased=False))
        assert running_mean is layers[name].running_mean and running_variance is layers[name].running_var


def test_the_feature_term_falls_when_it_leads():
    model = resnet()
    recipe = smi.recipe(
        "deepinversion_bn",
        objective=[("batchnorm_feature", 1.0)],
        iterations=30,
        warmup=0,
        jitter=0,
        flip=0,
        learning_rate=0.1,
    )
    losses = smi.invert(model, 4, recipe, seed=0).made["history"]["loss"]
    assert losses[-1] < 0.7 * losses[0]


def test_the_student_moves_the_images_and_is_left_alone():
    model, student = resnet(seed=0), resnet(seed=1).train()
    recipe = smi.recipe("adaptive_deepinversion_bn", iterations=3, warmup=0, learning_rate=0.01)
    images = smi.invert(model, 2, smi.recipe(recipe, student=student))
    other = smi.invert(model, 2, smi.recipe(recipe, student=resnet(seed=2)))
    assert not torch.equal(images.pixels, other.pixels)
    assert student.training and all(parameter.requires_grad for parameter in student.parameters())


def test_the_adaptive_term_composes_with_sparse_inversion_of_a_vit(tiny_vit):
    recipe = smi.recipe("deepinversion", iterations=6, objective=[("cross_entropy", 1.0), ("adaptive", 5.0)])
    stopping = smi.Stopping(at=(2, 4), drop=0.5)
    first, other = (
        smi.invert(tiny_vit(), 2, smi.recipe(recipe, student=tiny_vit(seed=seed)), stopping)
        for seed in (1, 2)
    )
    assert first.kept.shape == (2, 4)
    assert not torch.equal(first.pixels, other.pixels)


def test_resumed_with_a_student_to_the_same_bits_and_refused_with_another(tmp_path):
    model, asked = resnet(), iter(range(9))
    recipe = smi.recipe("adaptive_deepinversion_bn", iterations=4, warmup=0, student=resnet(seed=1))
    whole = smi.invert(model, 2, recipe)
    path = tmp_path / "state"
    with pytest.raises(smi.Interrupted):
        smi.invert(model, 2, recipe, checkpoint=path, should_stop=lambda: next(asked) == 2)
    with pytest.raises(smi.CheckpointError, match="student"):
        smi.invert(model, 2, smi.recipe(recipe, student=resnet(seed=2)), checkpoint=path)
    assert torch.equal(smi.invert(model, 2, recipe, checkpoint=path).pixels, whole.pixels)


def test_what_does_not_fit_together_is_refused(tiny_vit):
    model = resnet()
    short = {"iterations": 4, "warmup": 0}
    with pytest.raises(smi.UnsupportedModel, match="ResNet has none"):
        smi.invert(model, 2, smi.recipe("deepinversion_bn", **short), smi.Stopping(at=(1,)))
    with pytest.raises(smi.InvalidSetting, match="give a student"):
        smi.invert(model, 2, smi.recipe("adaptive_deepinversion_bn", **short))
    with pytest.raises(smi.InvalidSetting, match="no term that asks for one"):
        smi.invert(model, 2, smi.recipe("deepinversion_bn", **short, student=resnet()))
    with pytest.raises(smi.InvalidSetting, match="no BatchNorm"):
        smi.invert(tiny_vit(), 2, smi.recipe("deepinversion_bn", **short))
    with pytest.raises(smi.InvalidSetting, match="no attention"):
        smi.invert(model, 2, smi.recipe("psaq", iterations=4, warmup=0))
    model.pretrained_cfg = {"input_size": (1, 32, 32)}
    with pytest.raises(smi.UnsupportedModel, match="ResNet does not take 1x32x32 images"):
        smi.invert(model, 2, smi.recipe("deepinversion_bn", **short))


def test_l2_and_tv_l1_pull_on_cnns_as_on_vits(tiny_vit):
    for model in (resnet(), tiny_vit()):
        for term in ("l2", "tv_l1"):
            recipe = smi.recipe("deepinversion", objective=[(term, 1.0)], iterations=20, jitter=0, flip=0)
            losses = smi.invert(model, 2, recipe).made["history"]["loss"]
            assert losses[-1] < losses[0]
    image = torch.randn(2, 3, 4, 4)
    step = Step(image=image, view=image, logits=image, targets=image)
    assert TERMS["l2"](step) > 0

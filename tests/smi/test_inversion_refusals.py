"""What smi.invert refuses, in one line and before any work where it can be known by then."""

import pytest
import timm
import torch

import smi

SHORT = smi.recipe("deepinversion", iterations=12, learning_rate=0.1)
STOPPING = smi.Stopping(at=(3, 6), drop=(0.3, 0.5))  # 16 -> 11 -> 5 patches


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "count is 0; allowed: a whole number >= 1"),
        ({"count": 2, "batch_size": -1}, "batch_size is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": 1.5}, "seed is 1.5; allowed: a whole number"),
        ({"targets": torch.tensor([True, False])}, "allowed: 2 whole numbers"),
        ({"recipe": "dream"}, "unknown recipe 'dream'; allowed: adaptive_deepinversion_bn, deepinversion"),
        ({"iterations": 0}, "iterations is 0"),
        ({"stopping": smi.Stopping(at=(12,), drop=0.5)}, "the last stop must come before the end"),
        ({"stopping": smi.Stopping(at=(1, 2), drop=0.9)}, "drops every patch"),
        ({"targets": [0, 9]}, "allowed: 0..4"),
        ({"targets": [0]}, "allowed: 2 whole numbers"),
        ({"snapshots": (99,)}, "snapshots are"),
        ({"execution": "bf16"}, "execution is 'bf16'; allowed: None, or a smi.Execution"),
        ({"checkpoint": True}, "checkpoint is True; allowed: None, a path, or a smi.Checkpoint"),
    ],
)
def test_bad_settings_are_named(tiny_vit, settings, message):
    with pytest.raises(smi.InvalidSetting, match=r"^[^\n]+$") as caught:
        smi.invert(tiny_vit(), **{"count": 2, "recipe": SHORT, **settings})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: smi.Stopping(score="best"), "unknown score 'best'"),
        (lambda: smi.Execution(precision="fp8"), "precision is 'fp8'; allowed: fp32, tf32, bf16"),
        (lambda: smi.Checkpoint("state", seconds=-1), "seconds is -1; allowed: a number >= 0"),
        (lambda: smi.Checkpoint(3), "checkpoint is 3; allowed: None, a path, or a smi.Checkpoint"),
    ],
)
def test_bad_values_are_named_where_they_are_made(make, message):
    with pytest.raises(smi.InvalidSetting, match=r"^[^\n]+$") as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"at": ()},
        {"at": (0,)},
        {"at": (5, 5)},
        {"at": (7, 3)},
        {"at": (1.5,)},
        {"at": (1,), "drop": 0.0},
        {"at": (1,), "drop": 1.0},
        {"at": (1, 2), "drop": (0.5,)},
        {"at": (1,), "drop": "half"},
    ],
)
def test_schedules_that_make_no_sense_are_refused(settings):
    with pytest.raises(smi.InvalidSetting, match="stopping"):
        smi.Stopping(**settings)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "vit_relpos_small_patch16_224", "resnet18"])
def test_other_architectures_are_refused_by_name(name):
    model = timm.create_model(name, num_classes=2)
    with pytest.raises(smi.UnsupportedModel, match=type(model).__name__):
        smi.invert(model, 1, SHORT, STOPPING)


@pytest.mark.parametrize(
    "use", [smi.invert, lambda name: smi.quantize(name, None)], ids=["invert", "quantize"]
)
def test_a_name_is_no_model(use):
    with pytest.raises(smi.UnsupportedModel, match="str is not a timm VisionTransformer"):
        use("deit_tiny_patch16_224")


def test_diverging_loss_is_reported_with_its_iteration(tiny_vit):
    model = tiny_vit()
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    with pytest.raises(smi.NonFiniteLoss, match=r"iteration 0 .*learning rate 0\.1"):
        smi.invert(model, 2, SHORT)


def test_a_checkpoint_without_a_folder_is_refused_before_any_work(tiny_vit, tmp_path):
    with pytest.raises(smi.CheckpointError, match="the folder .* is not there"):
        smi.invert(tiny_vit(), 1, SHORT, checkpoint=tmp_path / "nowhere" / "state")


@pytest.mark.parametrize("score", ["cls_attention", "least_attention"])
def test_a_missing_class_token_is_noticed_before_any_work(tiny_vit, score):
    calls = []
    with pytest.raises(smi.UnsupportedModel, match="needs a class token"):
        smi.invert(
            tiny_vit(global_pool="avg", class_token=False),
            *(1, SHORT, smi.Stopping(at=(3, 6), drop=(0.3, 0.5), score=score)),
            progress=lambda *figures: calls.append(figures),
            should_stop=lambda: bool(calls.append("asked")),
        )
    assert not calls


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_of_another_dtype_are_refused_by_name(tiny_vit, dtype):
    with pytest.raises(smi.UnsupportedModel, match=f"weights are {str(dtype)[6:]}; allowed: float32"):
        smi.invert(tiny_vit().to(dtype), 1, SHORT)


def test_a_data_config_that_cannot_be_undone_is_refused(tiny_vit):
    model = tiny_vit()
    model.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.0, 0.5)}
    with pytest.raises(smi.UnsupportedModel, match="allowed: numbers above 0"):
        smi.invert(model, 1, SHORT)


def test_a_student_with_other_classes_is_refused(tiny_vit):
    recipe = smi.Recipe(name="own", objective=[["cross_entropy", 1.0], ["adaptive", 1.0]], iterations=3)
    for classes in (1, 4):
        with pytest.raises(smi.InvalidSetting, match="they must be equal"):
            smi.invert(tiny_vit(), 2, smi.recipe(recipe, student=tiny_vit(num_classes=classes)))


def test_a_loss_that_couples_the_images_of_a_batch_is_not_split(tiny_vit):
    psaq = smi.recipe("psaq", iterations=4, warmup=1)
    with pytest.raises(smi.InvalidSetting, match="cannot split the term patch_similarity_entropy"):
        smi.invert(tiny_vit(), 4, psaq, execution=smi.Execution(micro_batch=2))

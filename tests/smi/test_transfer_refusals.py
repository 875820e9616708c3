"""What transfer refuses: models and pools that do not fit, settings out of range."""

import pytest
import torch
from pools_to_teach_with import BASE, images, lively, with_recipe

import smi


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_classes": 6}, "classes: 5, the student's: 6"),
        ({"img_size": 32}, "input size"),
        ({"patch_size": 8}, "patch size"),
        ({"in_chans": 1}, "channels"),
    ],
)
def test_models_that_do_not_fit_each_other_are_refused(tiny_vit, overrides, message):
    with pytest.raises(smi.UnsupportedModel, match=message):
        smi.transfer(lively(tiny_vit), tiny_vit(**overrides), images(), **BASE)


def with_label(label):
    pool = images()
    pool.targets[2] = label
    return pool


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ([], "the pool is empty"),
        (images(count=6).select(slice(0, 0)), "holds no images"),
        (images(size=32), r"images of \[3, 32, 32\], the teacher takes \[3, 16, 16\]"),
        (images(patch=8, kept=2), "keeps patches of"),
        (with_label(5), r"labels in \d..5; the teacher's classes are 0..4"),
        (with_label(-1), "labels in -1"),
        ([images(), images(kept=6)], "set 1 of the pool keeps 6 patches, set 0 5"),
        ([images(), images(kept=None)], "keeps all patches"),
        ([images(), torch.zeros(3)], "is a Tensor"),
        ("/nowhere/images.safetensors", "no such file"),
    ],
)
def test_pools_that_do_not_fit_are_refused(tiny_vit, pool, message):
    with pytest.raises(smi.InvalidImages, match=message):
        smi.transfer(lively(tiny_vit), tiny_vit(), pool, **BASE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 7, "rounds": 2}, r"multiple of rounds \(2\)"),
        ({"rounds": 2}, "1 sets of images cannot be dealt to 2 rounds"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"optimizer": "adam"}, "allowed: sgd, adamw"),
        ({"train": "backbone"}, "allowed: all, head"),
        ({"learning_rate": -1}, "learning_rate is -1"),
        ({"flip": 1.5}, "flip is 1.5"),
        ({"momentum": 1.0}, r"momentum is 1.0; allowed: 0 to below 1"),
        ({"betas": (0.9, 1.0)}, r"betas is \(0.9, 1.0\); allowed: two numbers from 0 to below 1"),
        ({"batch_size": True}, "batch_size is True"),
        ({"patches": 17}, "patches is 17; allowed: None, or 1 to 16"),
        ({"evaluate_every": 0}, "evaluate_every is 0"),
        ({"precision": "fp16"}, "allowed: fp32, tf32, bf16"),
    ],
)
def test_settings_out_of_range_are_refused(tiny_vit, settings, message):
    with pytest.raises(smi.InvalidSetting, match=message):
        smi.transfer(lively(tiny_vit), tiny_vit(), images(), **with_recipe(**settings))


def test_a_student_without_the_parts_is_refused_by_name(tiny_vit):
    with pytest.raises(smi.UnsupportedModel, match="Linear"):
        smi.transfer(lively(tiny_vit), torch.nn.Linear(2, 2), images(), **BASE)

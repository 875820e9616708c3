"""torch's modes are the caller's: default dtype and device, inference mode. The same bits come out under any."""

import contextlib

import pytest
import torch
from timm.models.deit import VisionTransformerDistilled

import smi

SHORT = smi.recipe("deepinversion", iterations=4, learning_rate=0.1)
STOPPING = smi.Stopping(at=(1, 2), drop=0.3)


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES = {
    "default dtype": lambda: default_dtype(torch.float64),
    "default device": lambda: torch.device("meta"),  # stands for a GPU
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
}


def everything(model, student, folder):
    """What a user does, from noise to a student: tensors to compare."""
    made = [
        smi.invert(model, 3, SHORT, STOPPING, batch_size=2, targets=torch.ones(3, dtype=torch.int64, device="cpu")),
        smi.invert(model, 3, SHORT, smi.Stopping((1,), 0.5, "random"), snapshots=(0, 4)),
        smi.invert(model, 2, smi.recipe("psaq", iterations=4, warmup=1), checkpoint=folder / "invert"),
        smi.invert(model, 2, smi.published.recipe(SHORT), STOPPING),
    ]  # fmt: skip
    made[0].save(folder / "images")
    recipe = smi.transfer_recipe("default", steps=3, batch_size=2, jitter=0.2, patches=4)
    trained = [
        smi.transfer(model, student, made[0], recipe=recipe, checkpoint=folder / "transfer"),
        smi.transfer(model, student, folder / "images", steps=2),
    ]
    tensors = [t for images in made for t in (images.pixels, images.kept, images.targets, images.masked())]
    return tensors + [value for one in trained for value in one.state_dict().values()]


@pytest.mark.parametrize("mode", MODES)
def test_the_same_bits_come_out_in_any_mode(tiny_vit, tmp_path, mode):
    folders = [tmp_path / "plain", tmp_path / "mode"]
    for folder in folders:
        folder.mkdir()
    models = tiny_vit(), tiny_vit(seed=1, proj_drop_rate=0.1)
    plain = everything(*models, folders[0])
    with MODES[mode]():
        found = everything(*models, folders[1])
    for one, other in zip(found, plain, strict=True):
        assert one is other is None or (one.dtype == other.dtype and one.equal(other))


def test_models_made_in_inference_mode_are_taken(tiny_vit):
    images = smi.invert(tiny_vit(), 2, SHORT, STOPPING)
    with torch.inference_mode():
        model, student = tiny_vit(), tiny_vit(seed=1)
        assert smi.invert(model, 2, SHORT, STOPPING).pixels.equal(images.pixels)
        trained = smi.transfer(model, student, images, steps=2)
    assert not trained.head.weight.equal(student.head.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("which", ["teacher", "student"])
def test_models_of_another_dtype_are_not_distilled(tiny_vit, dtype, which):
    models = {"teacher": tiny_vit(), "student": tiny_vit(seed=1)}
    models[which].to(dtype)
    images = smi.invert(tiny_vit(), 1, SHORT)
    with pytest.raises(
        smi.UnsupportedModel, match=f"the {which}'s weights are {str(dtype)[6:]}; allowed: float32"
    ):
        smi.transfer(*models.values(), images, steps=1)


def test_a_student_in_distilled_training_is_refused(tiny_vit):
    student = VisionTransformerDistilled(
        img_size=16, patch_size=4, embed_dim=16, depth=1, num_heads=2, num_classes=5
    )
    images = smi.invert(tiny_vit(), 1, SHORT)
    smi.transfer(tiny_vit(), student, images, steps=1)
    student.set_distilled_training(True)
    with pytest.raises(smi.UnsupportedModel, match=r"set_distilled_training\(False\)"):
        smi.transfer(tiny_vit(), student, images, steps=1)

"""Images that the user brings are what the model takes, or one line says what they should be."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torchvision.utils import save_image

import smi
from bench import models
from bench.engine import include
from bench.engine.task import Sources, Task
from bench.errors import BenchError
from bench.tasks import given

NUMBERS = itertools.count()
COUNT = 3
FUNCTION = "import smi, torch\n\ndef made(model, count, seed, **options):\n    {body}\n"


@pytest.fixture(scope="module")
def teacher() -> tuple[torch.nn.Module, dict]:
    model = models.create(models.describe("digits_vit", Sources(), classes=3))
    models.set_data_config(model, [0.5], [0.25])
    return model, models.data_config(model)


def job(settings: dict, *files: Path) -> SimpleNamespace:
    task = Task("images", {"count": COUNT, "seed": 0, **settings})
    return SimpleNamespace(task=task, sources=Sources(files=files))


def from_function(folder: Path, body: str, teacher) -> smi.SyntheticImages:
    module = f"own_images_{next(NUMBERS)}"
    (folder / "mine").mkdir()
    (folder / "mine" / f"{module}.py").write_text(FUNCTION.format(body=body), encoding="utf-8")
    include.load([folder / "mine"])
    source = f"{module}:made"
    given.check_signature(source, {})
    return given.from_function(*teacher, job({"source": source, "options": {}}))


@pytest.mark.parametrize(
    "body",
    [
        "return torch.rand(count, 1, 32, 32)",
        "return torch.rand(count, 1, 32, 32), torch.arange(count)",
        "return smi.SyntheticImages(torch.rand(count, 1, 32, 32), torch.arange(count), None, (4, 4))",
    ],
)
def test_pixels_pixels_with_targets_or_images_do(tmp_path, teacher, body):
    images = from_function(tmp_path, body, teacher)
    assert images.count == COUNT and images.patch_size == (4, 4)
    assert 0 <= images.targets.min() and images.targets.max() < 3


def test_targets_that_are_not_given_are_the_classes_that_the_model_sees(tmp_path, teacher):
    images = from_function(tmp_path, "return torch.rand(count, 1, 32, 32)", teacher)
    assert torch.equal(images.targets, teacher[0]((images.pixels - 0.5) / 0.25).argmax(1))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return None", "returned a NoneType; allowed: smi.SyntheticImages"),
        ("return [torch.rand(count, 1, 32, 32)]", "returned a list"),
        ("return torch.rand(count, 3, 32, 32)", "allowed: torch.float32 [3, 1, 32, 32]"),
        ("return torch.rand(count + 1, 1, 32, 32)", "pixels torch.float32 [4, 1, 32, 32]"),
        ("return torch.rand(count, 1, 32, 32).double()", "pixels torch.float64"),
        ("return torch.rand(count, 1, 32, 32) * 255", "pixels must lie in [0, 1]"),
        ("return torch.full((count, 1, 32, 32), float('nan'))", "pixels must lie in [0, 1]"),
        ("return torch.rand(count, 1, 32, 32), torch.full((count,), 3)", "allowed: 0 to 2"),
        ("return torch.rand(count, 1, 32, 32), torch.rand(count)", "targets must be int64"),
    ],
)
def test_what_is_no_set_of_images_is_named_with_file_and_function(tmp_path, teacher, body, said):
    with pytest.raises(BenchError, match=r"mine/own_images_\d+\.py: made") as error:
        from_function(tmp_path, body, teacher)
    assert said in str(error.value)


def test_arguments_that_a_function_does_not_take_are_refused_before_any_work(tmp_path):
    module = f"own_images_{next(NUMBERS)}"
    (tmp_path / f"{module}.py").write_text("def made(model, count, seed, cells=8): ...\n", encoding="utf-8")
    include.load([tmp_path])
    given.check_signature(f"{module}:made", {"cells": 4})
    with pytest.raises(BenchError, match="unexpected keyword argument 'cell'"):
        given.check_signature(f"{module}:made", {"cell": 4})
    with pytest.raises(BenchError, match="has no function 'other'"):
        given.check_signature(f"{module}:other", {})


def test_pictures_in_a_folder_are_sized_and_drawn_by_the_seed(tmp_path, teacher):
    for number in range(5):
        save_image(torch.full((3, 40, 40), number / 5), tmp_path / f"{number}.png")
    settings = {"source": "files", "files": given.fingerprint(tmp_path)}
    first, again, other = (
        given.from_files(*teacher, job({**settings, "seed": seed}, tmp_path / "nowhere", tmp_path))
        for seed in (0, 0, 2)
    )
    assert first.pixels.shape == (COUNT, 1, 32, 32)
    assert torch.equal(first.pixels, again.pixels) and not torch.equal(first.pixels, other.pixels)


def test_a_changed_picture_is_another_hash_and_too_few_are_refused(tmp_path):
    save_image(torch.zeros(3, 8, 8), tmp_path / "0.png")
    before = given.fingerprint(tmp_path, 1)
    save_image(torch.ones(3, 8, 8), tmp_path / "0.png")
    assert given.fingerprint(tmp_path) != before
    with pytest.raises(BenchError, match="holds 1 images; 2 are asked for"):
        given.fingerprint(tmp_path, 2)


def test_pictures_that_changed_after_planning_are_refused(tmp_path, teacher):
    save_image(torch.zeros(3, 8, 8), tmp_path / "0.png")
    with pytest.raises(BenchError, match="there no more"):
        given.from_files(*teacher, job({"source": "files", "files": "0" * 16}, tmp_path))


def test_saved_images_keep_their_patches_and_must_fit_the_model(tmp_path, teacher):
    kept = torch.tensor([[0, 5]] * COUNT)
    targets = torch.arange(COUNT)
    path = tmp_path / "saved.safetensors"
    smi.SyntheticImages(torch.rand(COUNT, 1, 32, 32), targets, kept, (4, 4)).save(path)
    images = given.from_files(*teacher, job({"source": "files", "files": given.fingerprint(path)}, path))
    assert torch.equal(images.kept, kept) and torch.equal(images.targets, targets)
    smi.SyntheticImages(torch.rand(COUNT, 1, 32, 32), targets, kept, (8, 8)).save(path)
    with pytest.raises(BenchError, match=r"patches of \[8, 8\] pixels; allowed: \[4, 4\]"):
        given.from_files(*teacher, job({"source": "files", "files": given.fingerprint(path)}, path))

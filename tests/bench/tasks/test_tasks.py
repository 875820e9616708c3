"""Kinds of task: how many threads they take, and the images that are not inverted."""

import pytest
import torch

import smi
from bench import models
from bench.engine.task import Job, Sources, Task
from bench.tasks import KINDS, Kind
from bench.tasks.images import FILE
from smi.vit import normalisation


@pytest.fixture
def teacher(tmp_path):
    """(task, artifact folder) of an untrained micro ViT."""
    described = models.describe("digits_vit", Sources())
    model = models.create(described)
    models.initialise_micro_vit(model, 0)
    models.set_data_config(model, [0.3], [0.4])
    folder = tmp_path / "teacher"
    folder.mkdir()
    models.save(model, described, folder)
    return Task("teacher", {"model": described, "seed": 0}), folder


def run(task, folder, out, device="cpu"):
    out.mkdir()
    job = Job(
        task=task,
        inputs={"teacher": folder},
        out=out,
        checkpoint=out.parent / "state",
        device=device,
        sources=Sources(),
        progress=lambda done, total, figures: None,
        should_stop=lambda: False,
    )
    return KINDS[task.kind].run(job)


def images(teacher, out, **settings):
    task, folder = teacher
    wanted = {"count": 5, "seed": 0, "random_patches": None, **settings}
    metrics = run(Task("images", wanted, {"teacher": task}), folder, out)
    return smi.SyntheticImages.load(out / FILE), metrics


def test_noise_is_what_inversions_start_from(teacher, tmp_path):
    noise, metrics = images(teacher, tmp_path / "noise", source="noise", count=40)
    assert metrics == {"patches": 64, "kept": 64, "sparsity": 0.0} and noise.kept is None
    inside = noise.pixels[(noise.pixels > 0) & (noise.pixels < 1)]
    below = (noise.pixels == 0).float().mean().item()
    # normal with the model's mean 0.3 and deviation 0.4: what lies below black is clamped to it
    assert below == pytest.approx(0.5 * torch.erfc(torch.tensor(0.3 / 0.4 / 2**0.5)).item(), abs=0.01)
    assert inside.median() == pytest.approx(0.41, abs=0.03)
    assert normalisation(models.load(teacher[1])[0])[0].item() == pytest.approx(0.3)


def test_random_patches_are_sorted_distinct_and_differ(teacher, tmp_path):
    noise, metrics = images(teacher, tmp_path / "noise", source="noise", random_patches=14)
    assert noise.kept.shape == (5, 14) and metrics["kept"] == 14
    assert metrics["sparsity"] == pytest.approx(1 - 14 / 64)
    assert (noise.kept.diff(dim=1) > 0).all() and len(noise.kept.unique(dim=0)) == 5


def test_real_images_come_from_the_training_split_by_seed(teacher, tmp_path):
    from bench.datasets import fingerprint, open_dataset

    data = fingerprint("digits", {}, "train", Sources())
    first, _ = images(teacher, tmp_path / "first", source="real", data=data)
    same, _ = images(teacher, tmp_path / "same", source="real", data=data)
    other, _ = images(teacher, tmp_path / "other", source="real", data=data, seed=1)
    assert torch.equal(first.pixels, same.pixels) and not torch.equal(first.pixels, other.pixels)
    pictures, labels = (
        open_dataset("digits", {}, Sources()).split("train", {"input_size": (1, 32, 32)}).tensors
    )
    for pixels, target in zip(first.pixels, first.targets, strict=True):
        at = (pictures == pixels).flatten(1).all(1).nonzero().item()
        assert labels[at] == target


@pytest.mark.parametrize(
    ("model", "device", "one"), [(True, "cpu", True), (False, "cpu", False), (True, "cuda", False)]
)
def test_small_models_take_one_thread_so_that_cores_do_not_decide(model, device, one):
    seen = []
    settings = {
        "model": models.describe("digits_vit", Sources()) if model else {"name": "deit_tiny_patch16_224"}
    }
    task = Task("images", {}, {"teacher": Task("teacher", settings)})
    kind = Kind(1, lambda job: seen.append(torch.get_num_threads()) or {})
    torch.set_num_threads(3)
    kind.run(Job(task, {}, None, None, device, Sources(), None, None))
    assert seen == [1 if one else 3] and torch.get_num_threads() == 3

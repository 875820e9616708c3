"""Weights that come with the project: what is read is what was written, of the recipe that was asked for, undamaged."""

import json

import pytest
import torch

from bench import models
from bench.engine.task import Sources
from bench.errors import BenchError
from bench.models import published

NAME = "cifar_vit_small"
DATA = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}


@pytest.fixture
def recipe():
    described = models.describe(NAME, Sources())
    return published.recipe_of({"model": described, "training": {"epochs": 2}, "seed": 3}, None)


@pytest.fixture
def written(tmp_path, monkeypatch, recipe):
    """A model of random weights, published in a folder that stands for the project's."""
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    model = models.create(models.describe(NAME, Sources()))
    models.initialise(model, 3)
    path = published.write(tmp_path, f"{NAME}@3.cifar10", model.state_dict(), DATA, {"recipe": recipe})
    return model, path


def test_what_is_read_is_what_was_written_rounded_to_half(written, recipe):
    model, _ = written
    found = published.find(f"{NAME}@3", "cifar10", recipe)
    described = {**models.describe(NAME, Sources()), "weights": found}
    made = models.create(described, Sources())
    for name, value in made.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, model.state_dict()[name].half().float())
    assert models.data_config(made)["mean"] == DATA["mean"] and models.data_config(made)["std"] == DATA["std"]


def test_weights_of_another_recipe_or_name_are_not_taken(written, recipe):
    assert published.find(f"{NAME}@3", "cifar10", {**recipe, "seed": 4}) is None
    assert published.find(f"{NAME}@4", "cifar10", recipe) is None
    assert published.find(f"{NAME}@3", "cifar100", recipe) is None


def test_a_damaged_file_is_refused_by_its_checksum(written, recipe):
    _, path = written
    found = published.find(f"{NAME}@3", "cifar10", recipe)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BenchError, match="is damaged: its sha256 is"):
        published.find(f"{NAME}@3", "cifar10", recipe)
    with pytest.raises(BenchError, match="holds other weights"):
        published.read(found)


def test_all_that_come_with_the_project_are_whole_and_small():
    paths = sorted(published.FOLDER.glob("*.safetensors"))
    for path in paths:
        name, _, dataset = path.stem.rpartition(".")
        told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        found = published.find(name, dataset, told["recipe"])
        assert found is not None and path.stat().st_size < 2_000_000
        model = models.create(
            {"name": name, "architecture": told["recipe"]["architecture"], "weights": found}, Sources()
        )
        assert all(value.isfinite().all() for value in model.state_dict().values())
        assert told["trained"]["metrics"]["validation_top1"] > 50

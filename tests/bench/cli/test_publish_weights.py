"""Weights that were trained in a store become the project's: of which task, by which recipe, and what is refused."""

import json

import pytest
import torch
import yaml_text
from PIL import Image

from bench.__main__ import main
from bench.engine.store import Store
from bench.models import published

GRID = """\
name: tutored
title: Tutored
experiment: quantization
methods:
  original: {title: Original, source: none}
scales:
  digits:
    about: {subject: a few coloured squares, shows: that it runs}
    axes: {model: [cifar_vit_small@3], dataset: [cifar10], method: [original], bits: [W8/A8], seed: [0]}
    settings:
      teacher: {epochs: 1, batch_size: 10}
      tutor: {model: cifar_cnn, mix: 0.5, training: {epochs: 1, batch_size: 10}}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a grid, its data and the store in which it was run."""
    folder = tmp_path_factory.mktemp("tutored")
    (folder / "tutored.yaml").write_text(GRID, encoding="utf-8")
    for split, count in (("train", 10), ("test", 1)):
        for label in range(10):
            place = folder / "data" / split / str(label)
            place.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (32, 32), (25 * label, 20 * index, 90 + label * index)).save(
                    place / f"{index}.png"
                )
    assert sweep(folder, "store") == 0
    return folder


def sweep(folder, store, *options):
    places = [
        "--store",
        folder / store,
        "--results",
        folder / "results",
        "--data",
        f"cifar10={folder / 'data'}",
    ]
    return main(["sweep", "--grid", str(folder / "tutored.yaml"), "--quiet", *map(str, places), *options])


def teachers(folder, store):
    return list(Store(folder / store).records("teacher"))


def test_a_teacher_and_its_tutor_are_trained_published_and_taken(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    by_model = {record["settings"]["model"]["name"]: record for record in teachers(trained, "store")}
    assert set(by_model) == {"cifar_vit_small", "cifar_cnn"}
    teacher, tutor = by_model["cifar_vit_small"], by_model["cifar_cnn"]
    assert teacher["inputs"] == {"tutor": tutor["key"]} and len(teacher["metrics"]["curve"]) == 1

    task = f"teacher-{teacher['key']}"
    told = ["publish_weights", "--store", str(trained / "store"), "--to", str(tmp_path)]
    assert main([*told, f"cifar_vit_small@3.cifar10={task}"]) == 0
    record = json.loads((tmp_path / "cifar_vit_small@3.cifar10.json").read_text())
    assert record["recipe"]["seed"] == 3 and record["recipe"]["tutor"]["training"]["epochs"] == 1
    assert record["trained"]["metrics"] == teacher["metrics"] and "host" not in record["trained"]

    assert sweep(trained, "second") == 0
    (taken,) = teachers(trained, "second")
    assert taken["settings"]["model"]["weights"]["published"] == "cifar_vit_small@3.cifar10"
    state, mean, _ = published.read(taken["settings"]["model"]["weights"])
    assert len(mean) == 3 and all(torch.isfinite(value).all() for value in state.values())

    assert sweep(trained, "third", "--retrain") == 0
    assert {record["key"] for record in teachers(trained, "third")} == {teacher["key"], tutor["key"]}


def test_a_grid_that_trains_otherwise_does_not_take_them(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    (teacher,) = (r for r in teachers(trained, "store") if r["inputs"])
    told = ["publish_weights", "--store", str(trained / "store"), "--to", str(tmp_path)]
    assert main([*told, f"cifar_vit_small@3.cifar10=teacher-{teacher['key']}"]) == 0
    grid = yaml_text.read(trained / "tutored.yaml")
    grid["scales"]["digits"]["settings"]["tutor"]["mix"] = 0.25
    other = tmp_path / "other"
    other.mkdir()
    (other / "tutored.yaml").write_text(yaml_text.dump(grid), encoding="utf-8")
    (other / "data").symlink_to(trained / "data")
    assert sweep(other, "store") == 0
    assert all("weights" not in record["settings"]["model"] for record in teachers(other, "store"))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("cifar_vit_small", "give NAME=TASK"),
        ("a.cifar10=teacher-0123456789abcdef", "no finished training of that name"),
    ],
)
def test_what_cannot_be_published_is_one_line(trained, capsys, entry, said):
    assert main(["publish_weights", "--store", str(trained / "store"), entry]) == 2
    assert said in capsys.readouterr().err


def test_mixing_without_a_tutor_is_refused(trained, tmp_path, capsys):
    grid = yaml_text.read(trained / "tutored.yaml")
    settings = grid["scales"]["digits"]["settings"]
    del settings["tutor"]
    settings["teacher"]["mix"] = 0.5
    (tmp_path / "tutored.yaml").write_text(yaml_text.dump(grid), encoding="utf-8")
    (tmp_path / "data").symlink_to(trained / "data")
    assert sweep(tmp_path, "store") == 2
    assert "mix" in capsys.readouterr().err

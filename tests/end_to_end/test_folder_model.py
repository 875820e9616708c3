"""A folder as transformers' `save_pretrained` writes it, as the model of a grid, from pictures to the table."""

from __future__ import annotations

import re

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from small_grid import SmallGrid
from vision_data import folders

from bench import models

NAME = "my_vit"


@pytest.fixture
def weights(tmp_path):
    """`--checkpoints`, with a small ViT of three classes in it."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        image_size=32,
        patch_size=8,
        id2label={0: "ant", 1: "bee", 2: "cat"},
    )
    model = transformers.ViTForImageClassification(config)
    model.save_pretrained(tmp_path / "weights" / NAME)
    mean = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.25]}
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}, **mean).save_pretrained(
        tmp_path / "weights" / NAME
    )
    return tmp_path / "weights"


@pytest.fixture
def grid(tmp_path, weights):
    """Table 3's middle scale with that model and pictures of ants, bees and cats."""

    def change(scales):
        scale = scales["cifar"]
        settings = scale["settings"]
        settings["recipes"]["deepinversion"]["iterations"] = 6
        settings["schedules"]["sparse77"]["at"] = [1, 2, 3, 4]
        settings["images"] = {"count": 4}
        scale["axes"] |= {"model": [NAME], "dataset": ["pets"], "seed": [0], "bits": ["W8/A8"]}
        scale["axes"]["method"] = ["original", "real", "deepinversion_sparse"]
        scale["include"] = scale["exclude"] = []

    made = SmallGrid("table3", tmp_path, change)
    pictures = folders(tmp_path / "pets", size=32)
    made.options = ("--scale", "cifar", "--data", f"pets={pictures}", "--checkpoints", str(weights))
    return made


def test_a_folder_is_a_model_of_a_grid(grid, weights, tmp_path):
    assert grid() == 0
    text = grid.table("cifar", "table3")
    assert f"| {NAME} " in text and "| failed" not in text
    (teacher,) = grid.records("teacher")
    assert teacher["settings"]["model"]["weights"]["folder"] == NAME
    assert all(0 <= record["metrics"]["top1"] <= 100 for record in grid.records("quantize"))
    made, data = models.load(grid.artifacts(teacher))
    assert data["mean"] == [0.4, 0.5, 0.6] and data["input_size"] == [3, 32, 32]
    picture = torch.rand(2, 3, 32, 32)
    theirs = transformers.ViTForImageClassification.from_pretrained(weights / NAME).eval()
    torch.testing.assert_close(made(picture), theirs(picture).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "what", ["nothing", "damaged", "not finite", "both", "other classes", "unknown kind"]
)
def test_a_folder_that_does_not_serve_is_refused_in_one_line(grid, weights, tmp_path, capsys, what):
    file = weights / NAME / "model.safetensors"
    said = {
        "nothing": r"unknown model 'my_vit'; .*folders that save_pretrained wrote, DIR/my_vit/ of --checkpoints DIR",
        "damaged": "damaged",
        "not finite": "holds NaN or infinite values",
        "both": "are both there; keep one",
        "other classes": "my_vit has 3 classes, pets has 4",
        "unknown kind": "Beit",
    }[what]
    if what == "nothing":
        (weights / NAME).rename(weights / "another")
    elif what == "damaged":
        file.write_bytes(file.read_bytes()[:-100])
    elif what == "not finite":
        state = load_file(file)
        state["vit.encoder.layer.0.output.dense.bias"][3] = float("nan")
        save_file(state, file, {"format": "pt"})
    elif what == "both":
        save_file({"head.bias": torch.zeros(3)}, weights / f"{NAME}.safetensors")
    elif what == "other classes":
        folders(tmp_path / "pets", classes=("dog",), size=32)
    else:
        config = weights / NAME / "config.json"
        text = config.read_text().replace("ViTForImageClassification", "BeitForImageClassification")
        config.write_text(text)
    assert grid() == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and "Traceback" not in error
    assert not grid.records("teacher")


def test_other_weights_in_the_folder_are_another_model(grid, weights):
    assert grid() == 0
    file = weights / NAME / "model.safetensors"
    state = load_file(file)
    state["classifier.bias"] += 1
    save_file(state, file, {"format": "pt"})
    assert grid() == 0
    assert len({record["key"] for record in grid.records("teacher")}) == 2

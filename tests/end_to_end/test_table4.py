"""Table 4 end to end: the digits scale in small, and the paper's scale whole on data and weights made here."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file
from small_grid import TINY, SmallGrid, cut_off_the_network, save_weights
from vision_data import cifar


def shorten(scale: dict, pools: dict, learning: dict) -> None:
    """Few iterations, images and steps; everything else as in the grid."""
    settings = scale["settings"]
    settings["recipes"]["deepinversion"]["iterations"] = 8
    settings["schedules"]["sparse77"]["at"] = [1, 2, 3, 4]
    settings["pools"] = pools
    settings["learning"] |= learning
    settings["evaluate_every"] = 2
    scale["axes"] |= {"seed": [0, 1], "pool": list(pools)}


@pytest.fixture
def digits(tmp_path):
    def change(scales):
        pools = {"one_round": {"rounds": 1, "images": 4, "set": 2, "steps": 4, "batch_size": 3}}
        shorten(scales["digits"], pools, {})
        scales["digits"]["settings"]["teacher"]["epochs"] = 1

    return SmallGrid("kd", tmp_path, change)


@pytest.mark.slow
def test_the_digits_scale_runs_whole_and_nothing_twice(digits, capsys):
    assert digits() == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0].startswith("kd at the scale 'digits'")
    text = digits.table("digits", "table4")
    assert text in said and text.startswith("# Table 4, digits scale")
    assert "not run" not in text and "failed" not in text
    for title in (
        "Teacher",
        "DeepInversion (dense)",
        "DeepInversion (sparse)",
        "control: real, random patches",
    ):
        assert f"| {title} " in text
    transfers = digits.records("transfer")
    assert len(transfers) == 24
    for record in transfers:
        assert [entry["step"] for entry in record["metrics"]["curve"]] == [0, 2, 4]
        assert record["metrics"]["images"] == 4
    before = {record["key"]: record["finished"] for record in transfers}
    assert digits() == 0
    assert "0 brought to an end now" in capsys.readouterr().out
    assert before == {record["key"]: record["finished"] for record in digits.records("transfer")}
    assert digits.table("digits", "table4") == text
    assert "(digits/table4.md)" in (digits.results / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def paper(tmp_path):
    """The paper's scale with DeiT-Tiny alone: CIFAR-10 of 20 pictures a batch, random weights on disk."""

    def change(scales):
        pools = {
            "affordable": {"rounds": 2, "images": 1, "steps": 1, "batch_size": 1},
            "paper": {"rounds": 3, "images": 1, "steps": 1, "batch_size": 1},
        }
        shorten(scales["paper"], pools, {})
        methods = ["teacher", "deepinversion_sparse", "dense_random_patches", "real"]
        scales["paper"]["axes"] |= {"model": [TINY], "dataset": ["cifar10"], "method": methods, "seed": [0]}
        scales["paper"]["settings"]["fine_tuning"] |= {"epochs": 1, "batch_size": 30, "precision": "fp32"}

    cifar(tmp_path / "data", 10, train=20, test=10)
    grid = SmallGrid("kd", tmp_path, change)
    grid.use_the_papers_scale("--data", f"cifar10={tmp_path / 'data'}")
    return grid


@pytest.mark.slow
def test_the_papers_scale_runs_whole_on_cifar_with_a_teacher_fine_tuned_here(paper, capsys):
    assert paper() == 0
    text = paper.table("paper", "table4")
    assert text.startswith("# Table 4, paper scale") and "failed" not in text and "not run" not in text
    assert "pool `affordable`: 2 rounds of 1 images and 1 step of 1" in text
    (teacher,) = paper.records("teacher")
    assert teacher["settings"]["model"]["classes"] == 10 and 0 <= teacher["metrics"]["validation_top1"] <= 100
    folder = paper.artifacts(teacher)
    tuned, given = (
        load_file(folder / "model.safetensors"),
        load_file(paper.folder / "weights" / f"{TINY}.safetensors"),
    )
    assert tuned["head.weight"].shape == (10, 192)
    assert tuned["blocks.3.attn.qkv.weight"].equal(given["blocks.3.attn.qkv.weight"]), (
        "the backbone is frozen"
    )
    assert json.loads((folder / "model.json").read_text())["data"]["input_size"] == [3, 224, 224]
    sparse = [r for r in paper.records("transfer") if "deepinversion_sparse" in r["label"]]
    assert {record["metrics"]["kept"] for record in sparse} == {46}
    assert sorted(record["metrics"]["images"] for record in sparse) == [2, 3]
    curve = next(record["metrics"]["curve"] for record in sparse if record["metrics"]["images"] == 3)
    assert [entry["pool"] for entry in curve] == [1, 2, 3], "the pool grows by rounds"
    inversions = [r for r in paper.records("images") if r["settings"]["source"] == "inversion"]
    assert len(inversions) == 2 * 3, "the shorter pool's sets are the longer one's first"


@pytest.mark.slow
def test_a_teacher_of_ones_own_is_taken_as_it_is(paper):
    own = save_weights(paper.folder / "weights" / f"{TINY}.cifar10.safetensors", seed=1, num_classes=10)
    assert paper("--only", "evaluate*") == 0
    (teacher,) = paper.records("teacher")
    assert "fine_tuning" not in teacher["settings"]
    folder = paper.artifacts(teacher)
    made = load_file(folder / "model.safetensors")
    assert all(made[name].equal(value) for name, value in own.items())


def test_missing_data_and_weights_are_one_line_before_any_work(paper, capsys, monkeypatch):
    monkeypatch.setenv("SMI_DATA_CACHE", str(paper.folder / "cache"))
    monkeypatch.setattr("bench.datasets.places._download", lambda fetch, folder: "offline")
    given = paper.options
    paper.options = tuple(option for option in given if option != "--data" and "cifar10=" not in option)
    assert paper() == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: data set cifar10 is not on this machine (offline)") and "\n" not in error
    (paper.folder / "weights" / f"{TINY}.safetensors").unlink()
    paper.options = given
    cut_off_the_network(monkeypatch)
    assert paper() == 2
    error = capsys.readouterr().err.strip()
    assert f"no weights for {TINY}" in error and "\n" not in error
    assert not (paper.folder / "store").exists()

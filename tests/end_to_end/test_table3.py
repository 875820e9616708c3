"""Table 3 end to end: small settings at the digits scale, and the paper's scale whole on pictures made here."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from small_grid import REPOSITORY, TINY, SmallGrid, cut_off_the_network, save_weights

from bench.publish.__main__ import main as make_tables

CLASSES = ("n01440764", "n01443537", "n02110185", "n03888257")


def shorten(scale: dict, stops: list[int], iterations: int, seeds: list[int]) -> None:
    """Few iterations, images and seeds; everything else as in the grid."""
    settings = scale["settings"]
    settings["images"] = {"count": 2}
    settings["recipes"]["deepinversion"]["iterations"] = iterations
    settings["recipes"]["psaq"] |= {"iterations": iterations, "warmup": 1}
    settings["schedules"]["sparse77"]["at"] = stops
    scale["axes"]["seed"] = seeds


def row(text: str, title: str) -> list[str]:
    accuracy = text.partition("### Rows told apart")[0]
    line = [line for line in accuracy.splitlines() if line.startswith("|") and title in line][-1]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def digits(tmp_path):
    def change(scales):
        shorten(scales["digits"], [1, 2, 3, 4], 8, [0, 1])
        scales["digits"]["settings"]["teacher"]["epochs"] = 2

    return SmallGrid("table3", tmp_path, change)


@pytest.mark.slow
def test_the_digits_scale_runs_whole_and_nothing_twice(digits, capsys):
    assert digits() == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0].startswith("table3 at the scale 'digits'")
    text = digits.table("digits", "table3")
    assert text in said and text.startswith("# Table 3, digits scale")
    accuracy = text.partition("## Data-free quantization")[2]
    assert "not run" not in accuracy and "failed" not in accuracy
    assert row(text, "DeepInversion (sparse)")[3] == "14 of 64"
    assert row(text, "noise, random patches")[3] == "14 of 64"
    assert row(text, "PSAQ-ViT (dense)")[3] == "64 of 64"
    assert "(2)" in row(text, "Gaussian noise")[5] and "(1)" in row(text, "Original")[5]

    before = {record["key"]: record["finished"] for record in digits.records("*")}
    assert digits() == 0
    assert {record["key"]: record["finished"] for record in digits.records("*")} == before
    assert digits.table("digits", "table3") == text

    (digits.results / "digits" / "table3.md").unlink()
    assert make_tables(["--results", str(digits.results)]) == 0  # from published records alone
    assert digits.table("digits", "table3") == text
    assert "(digits/table3.md)" in (digits.results / "README.md").read_text(encoding="utf-8")


def _figures(digits):
    """The metrics of each quantized model, less the one that is a time."""
    found = {record["key"]: record["metrics"] for record in digits.records("quantize")}
    assert all(metrics.pop("calibration_seconds") > 0 for metrics in found.values())
    return found


@pytest.mark.slow
def test_the_same_grid_in_another_store_gives_the_same_figures(digits, tmp_path):
    wanted = ("--only", "*deepinversion_sparse W4/A8 seed 0*")
    assert digits(*wanted) == 0
    first = _figures(digits)
    digits.folder, digits.results = tmp_path / "other", tmp_path / "other" / "results"  # the grid file stays
    assert digits(*wanted) == 0
    assert _figures(digits) == first
    assert row(digits.table("digits", "table3"), "Real images")[5] == "2 not run"


@pytest.fixture
def paper(tmp_path):
    """The paper's scale with pictures, a checkpoint and few iterations, none of it in the repository."""

    def change(scales):
        shorten(scales["paper"], [1, 2, 3, 4], 8, [0])
        scales["paper"]["axes"]["model"] = [TINY]

    grid = SmallGrid("table3", tmp_path, change)
    for split in ("val", "train"):
        for index, name in enumerate(CLASSES):
            folder = tmp_path / "imagenet" / split / name
            folder.mkdir(parents=True)
            for copy in range(2):
                noise = torch.randint(
                    0, 256, (260, 240, 3), generator=torch.Generator().manual_seed(10 * index + copy)
                )
                Image.fromarray(noise.to(torch.uint8).numpy()).save(folder / f"{name}_{copy}.JPEG")
    grid.use_the_papers_scale("--imagenet", str(tmp_path / "imagenet"))
    return grid


@pytest.mark.slow
def test_the_paper_scale_runs_whole_on_pictures_made_here(paper, capsys):
    committed = {path: path.read_bytes() for path in (REPOSITORY / "results").rglob("*") if path.is_file()}
    assert paper() == 0
    text = paper.table("paper", "table3")
    assert text.startswith("# Table 3, paper scale")
    sparse = row(text, "DeepInversion (sparse)")
    assert sparse[0] == "DeiT/16-Tiny" and sparse[3] == "46 of 196"
    assert sparse[6] == "64.04" and sparse[10] == "70.13"  # the paper's, beside ours
    assert float(sparse[7]) == pytest.approx(float(sparse[5].split()[0]) - 64.04, abs=0.011)
    assert row(text, "Original")[6] == "72.14"
    assert row(text, "noise, random patches")[3] == "46 of 196"
    accuracy = text.partition("## Data-free quantization")[2]
    assert "not run" not in accuracy and "failed" not in accuracy
    records = paper.records("*")
    assert len(records) == 1 + 1 + 12 + 24
    assert not any(str(paper.folder) in json.dumps(record["settings"]) for record in records)
    assert all(record["metrics"]["pictures"] == 8 for record in records if record["kind"] == "quantize")
    assert committed == {
        path: path.read_bytes() for path in (REPOSITORY / "results").rglob("*") if path.is_file()
    }


@pytest.mark.slow
def test_without_a_training_split_the_row_of_real_images_is_a_hole(paper, capsys):
    (paper.folder / "imagenet" / "train").rename(paper.folder / "elsewhere")
    assert paper("--only", "*W4/A8*") == 0
    assert "real is left out: data set imagenet has no train split here" in capsys.readouterr().err
    assert row(paper.table("paper", "table3"), "Real images")[5] == "not run"


@pytest.mark.slow
def test_a_model_of_ones_own_is_quantized_on_pictures_of_ones_own(paper, tmp_path, capsys):
    (tmp_path / "imagenet").rename(tmp_path / "pets")  # train/<class>/ and val/<class>/, four classes
    paper.change(lambda scales: scales["paper"]["axes"].update(dataset=["pets"], method=["original"]))
    paper.options = (
        "--scale",
        "paper",
        "--allow-cpu",
        "--data",
        f"pets={tmp_path / 'pets'}",
        *paper.options[-2:],
    )
    assert paper() == 2
    assert f"{TINY} has 1000 classes, pets has 4; --checkpoints DIR takes" in capsys.readouterr().err
    save_weights(tmp_path / "weights" / f"{TINY}.pets.safetensors", seed=1, num_classes=4)
    assert paper() == 0
    (teacher,), (evaluated,) = paper.records("teacher"), paper.records("evaluate")
    assert teacher["settings"]["model"]["classes"] == 4 and evaluated["metrics"]["pictures"] == 8


@pytest.mark.parametrize(
    ("what", "message"), [("--imagenet", "--imagenet PATH"), ("--checkpoints", "--checkpoints DIR")]
)
def test_missing_data_or_weights_is_one_line_before_any_work(paper, capsys, monkeypatch, what, message):
    cut_off_the_network(monkeypatch)
    at = paper.options.index(what)
    paper.options = paper.options[:at] + paper.options[at + 2 :]
    assert paper() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (paper.folder / "store").exists() and not paper.results.exists()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"junk"])
def test_a_damaged_checkpoint_is_one_line_before_any_work(paper, capsys, damage):
    path = paper.folder / "weights" / f"{TINY}.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert paper() == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path} is no readable checkpoint") and error.count("\n") == 1
    assert not (paper.folder / "store").exists()

"""Table 3 end to end: small settings at the digits scale, and the paper's scale whole on pictures made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from bench.sweep import main
from bench.tables.__main__ import main as make_tables

REPOSITORY = Path(__file__).parents[2]
TABLE3 = REPOSITORY / "experiments" / "table3.yaml"
TINY = "deit_tiny_patch16_224"
CLASSES = ("n01440764", "n01443537", "n02110185", "n03888257")


class Bench:
    """A folder of its own with a grid, a store and results."""

    def __init__(self, folder: Path, change) -> None:
        self.folder = folder
        self.results = folder / "results"
        grid = yaml.safe_load(TABLE3.read_text(encoding="utf-8").replace("2e-3", "0.002"))
        change(grid)
        self.grid = folder / "table3.yaml"
        self.grid.write_text(yaml.safe_dump(grid, sort_keys=False), encoding="utf-8")

    def __call__(self, *options: str) -> int:
        places = ("--store", str(self.folder / "store"), "--results", str(self.results))
        return main(["--grid", str(self.grid), *places, "--device", "cpu", "--executor", "serial", *options])

    def records(self, kind: str) -> list[dict]:
        paths = (self.folder / "store" / "records").glob(f"{kind}-*.json")
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    def table(self, scale: str) -> str:
        return (self.results / scale / "table3.md").read_text(encoding="utf-8")


def shorten(scale: dict, stops: list[int], iterations: int, seeds: list[int]) -> None:
    """Few iterations, images and seeds; everything else as in the grid."""
    settings = scale["settings"]
    settings["images"] = {"count": 2}
    settings["recipes"]["deepinversion"]["iterations"] = iterations
    settings["recipes"]["psaq"] |= {"iterations": iterations, "warmup": 1}
    settings["schedules"]["sparse77"]["at"] = stops
    scale["axes"]["seed"] = seeds


def row(text: str, title: str) -> list[str]:
    line = [line for line in text.splitlines() if line.startswith("|") and title in line][-1]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def digits(tmp_path):
    def change(grid):
        scale = grid["scales"]["digits"]
        shorten(scale, [1, 2, 3, 4], 6, [0, 1])
        scale["settings"]["teacher"]["epochs"] = 2

    return Bench(tmp_path, change)


@pytest.mark.slow
def test_the_digits_scale_runs_whole_and_nothing_twice(digits, capsys):
    assert digits() == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0].startswith("table3 at the scale 'digits'")
    text = digits.table("digits")
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
    assert digits.table("digits") == text

    (digits.results / "digits" / "table3.md").unlink()
    assert make_tables(["--results", str(digits.results)]) == 0  # from published records alone
    assert digits.table("digits") == text
    assert "(digits/table3.md)" in (digits.results / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_same_grid_in_another_store_gives_the_same_figures(digits, tmp_path):
    wanted = ("--only", "*deepinversion_sparse W4/A8 seed 0*")
    assert digits(*wanted) == 0
    first = {record["key"]: record["metrics"] for record in digits.records("quantize")}
    digits.folder, digits.results = tmp_path / "other", tmp_path / "other" / "results"  # the grid file stays
    assert digits(*wanted) == 0
    assert {record["key"]: record["metrics"] for record in digits.records("quantize")} == first
    assert row(digits.table("digits"), "Real images")[5] == "2 not run"


@pytest.fixture
def paper(tmp_path):
    """The paper's scale with pictures, a checkpoint and few iterations, none of it in the repository."""

    def change(grid):
        scale = grid["scales"]["paper"]
        shorten(scale, [1, 2, 3, 4], 6, [0])
        scale["axes"]["model"] = [TINY]

    bench = Bench(tmp_path, change)
    for split in ("val", "train"):
        for index, name in enumerate(CLASSES):
            folder = tmp_path / "imagenet" / split / name
            folder.mkdir(parents=True)
            for copy in range(2):
                noise = torch.randint(
                    0, 256, (260, 240, 3), generator=torch.Generator().manual_seed(10 * index + copy)
                )
                Image.fromarray(noise.to(torch.uint8).numpy()).save(folder / f"{name}_{copy}.JPEG")
    (tmp_path / "checkpoints").mkdir()
    torch.manual_seed(0)
    model = timm.create_model(TINY)
    save_file(model.state_dict(), tmp_path / "checkpoints" / f"{TINY}.safetensors")
    return bench


def options(bench: Bench) -> tuple[str, ...]:
    places = (
        "--imagenet",
        str(bench.folder / "imagenet"),
        "--checkpoints",
        str(bench.folder / "checkpoints"),
    )
    return ("--scale", "paper", "--allow-cpu", *places)


@pytest.mark.slow
def test_the_paper_scale_runs_whole_on_pictures_made_here(paper, capsys):
    committed = {path: path.read_bytes() for path in (REPOSITORY / "results").rglob("*") if path.is_file()}
    assert paper(*options(paper)) == 0
    text = paper.table("paper")
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
    assert len(records) == 1 + 1 + 8 + 16
    assert not any(str(paper.folder) in json.dumps(record["settings"]) for record in records)
    assert all(record["metrics"]["pictures"] == 8 for record in records if record["kind"] == "quantize")
    assert committed == {
        path: path.read_bytes() for path in (REPOSITORY / "results").rglob("*") if path.is_file()
    }


@pytest.mark.slow
def test_without_a_training_split_the_row_of_real_images_is_a_hole(paper, capsys):
    (paper.folder / "imagenet" / "train").rename(paper.folder / "elsewhere")
    assert paper(*options(paper), "--only", "*W4/A8*") == 0
    assert "real is left out: data set imagenet has no train split here" in capsys.readouterr().err
    assert row(paper.table("paper"), "Real images")[5] == "not run"


def missing(bench: Bench, what: str) -> tuple[str, ...]:
    given = list(options(bench))
    at = given.index(f"--{what}")
    del given[at : at + 2]
    return tuple(given)


@pytest.mark.parametrize(
    ("what", "message"), [("imagenet", "--imagenet PATH"), ("checkpoints", "--checkpoints DIR")]
)
def test_missing_data_or_weights_is_one_line_before_any_work(paper, capsys, monkeypatch, what, message):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert paper(*missing(paper, what)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (paper.folder / "store").exists() and not paper.results.exists()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"junk"])
def test_a_damaged_checkpoint_is_one_line_before_any_work(paper, capsys, damage):
    path = paper.folder / "checkpoints" / f"{TINY}.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert paper(*options(paper)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path} is no readable checkpoint") and error.count("\n") == 1
    assert not (paper.folder / "store").exists()

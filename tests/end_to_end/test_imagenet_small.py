"""ImageNet on a laptop, every grid of it whole: on pictures made here and random weights, so no result is kept."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from small_grid import REPOSITORY, TINY, SmallGrid
from timm.data import ImageNetInfo

from bench.publish.figures.__main__ import main as draw
from bench.publish.report.__main__ import main as report

SCALE, SMALLEST = "imagenet_small", "test_vit"
CLASSES = ImageNetInfo("imagenet-1k").label_names()[:6]
SUBSET = 8
TABLES = {
    "table3": "table3",
    "four_bits": "four_bits",
    "kd": "table4",
    "deploy": "deploy",
    "figures": "figures",
}


def shorten(scales) -> None:
    """Few iterations, images, steps and seeds; everything else as in the grid."""
    scale = scales[SCALE]
    settings = scale["settings"]
    settings["datasets"]["imagenet"]["subset"] = SUBSET
    settings["images"] = {"count": 2}
    settings["recipes"]["deepinversion"]["iterations"] = 6
    if "psaq" in settings["recipes"]:
        settings["recipes"]["psaq"] |= {"iterations": 4, "warmup": 1}
    if "schedules" in settings:
        settings["schedules"]["sparse77"]["at"] = [1, 2, 3, 4]
    if "pools" in settings:
        settings["pools"]["one_round"] |= {"images": 4, "set": 2, "steps": 2, "batch_size": 2}
    if "targets" in settings:
        settings |= {"targets": [1, 88], "class_names": ["goldfish", "macaw"], "snapshots": [2]}
    if "batches" in settings:
        settings |= {"batches": [1], "repetitions": 3}
    scale["axes"]["seed"] = [0]
    scale["exclude"] = [one for one in scale.get("exclude", []) if "seed" not in one]


@pytest.fixture
def small(tmp_path):
    """A grid by its name, shortened, with two pictures a class of six classes and weights on disk."""

    def make(name: str) -> SmallGrid:
        grid = SmallGrid(name, tmp_path, shorten)
        for split in ("val", "train"):
            for index, wnid in enumerate(CLASSES):
                folder = tmp_path / "imagenet" / split / wnid
                folder.mkdir(parents=True)
                for copy in range(2):
                    generator = torch.Generator().manual_seed(10 * index + copy)
                    noise = torch.randint(0, 256, (180, 170, 3), generator=generator)
                    Image.fromarray(noise.to(torch.uint8).numpy()).save(folder / f"{wnid}_{copy}.JPEG")
        (tmp_path / "weights").mkdir()
        for seed, model in enumerate((SMALLEST, TINY)):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                save_file(
                    timm.create_model(model).state_dict(), tmp_path / "weights" / f"{model}.safetensors"
                )
        places = ("--imagenet", str(tmp_path / "imagenet"), "--checkpoints", str(tmp_path / "weights"))
        grid.options = ("--scale", SCALE, *places)
        return grid

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_a_grid_runs_whole_on_a_subset_that_every_title_and_key_names(small, name):
    committed = {path: path.read_bytes() for path in (REPOSITORY / "results").rglob("*") if path.is_file()}
    grid = small(name)
    assert grid() == 0
    text = grid.table(SCALE, TABLES[name])
    title, scored = text.partition("\n")[0], f"{SUBSET} validation pictures"
    records = grid.records("*")
    assert {record["status"] for record in records} == {"done"}
    if name == "figures":  # scores nothing
        assert f"up to {scored}" in title
        places = ["--store", str(grid.folder / "store"), "--results", str(grid.results)]
        assert draw(["--scale", SCALE, *places]) == 0
        drawn = json.loads((grid.results / SCALE / "figures" / "figures.json").read_text(encoding="utf-8"))
        assert "trajectory" in json.dumps(drawn)
    else:
        assert f"{SCALE} scale, {scored}" in title
        assert "binomial standard error" in text
    assert report([str(grid.results / SCALE)]) == 0
    assert scored in (grid.results / SCALE / "report.html").read_text(encoding="utf-8")
    tests = [record["settings"]["test"] for record in records if "test" in record["settings"]]
    assert all(one["settings"]["subset"] == SUBSET for one in tests) and bool(tests) == (name != "figures")
    assert all(record["metrics"].get("pictures", SUBSET) == SUBSET for record in records)
    if name in ("table3", "four_bits"):
        assert "Not all of the paper's models and data, nor its settings, and not its figures." in text
    assert not (REPOSITORY / "results" / SCALE).exists()
    assert committed == {path: path.read_bytes() for path in committed}

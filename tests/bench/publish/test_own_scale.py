"""A grid of one's own, its scale of any name and its pictures from a folder: every page names them by its words."""

from __future__ import annotations

import pytest

from bench import publish
from bench.engine.plan import CellTasks
from bench.engine.store import Store
from bench.engine.task import Task
from bench.grid import load
from bench.publish import manifest, report, scale_notes

GRID = """\
name: seeds
title: Quantization of seed sorters
experiment: quantization
methods:
  noise: {title: noise, source: noise}
scales:
  harvest:
    about:
      subject: "two ViTs on pictures of wheat and rye"
      shows: It shows how a sorter of grain is inverted.
      reading: Ears are told apart by their awns.
      pictures: What looks like chaff is noise.
    axes: {model: [sorter_vit], dataset: [grain], method: [noise], bits: [W4/A8], seed: [0]}
"""
STRANGERS = ("digits", "CIFAR", "cifar", "DeiT on", "ImageNet", "micro ViT", "small ViTs", "scikit-learn")


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "seeds.yaml"
    path.write_text(GRID, encoding="utf-8")
    grid = load(path)
    train = {"dataset": {"name": "grain", "form": "pictures in folders"}}
    task = Task("quantize", train, {"images": Task("images", {"model": "sorter_vit"})})
    cells = [CellTasks(cell, {"quantize": task}) for cell in grid.cells("harvest")]
    store = Store(tmp_path / "runs")
    store.prepare()
    folder = tmp_path / "results"
    command = f"python -m bench.sweep --grid {path.name} --scale harvest"
    publish.render(grid, "harvest", cells, store, folder, {"command": command})
    return folder


def test_the_table_the_index_and_the_report_say_what_the_grid_says(results):
    table = (results / "harvest" / "seeds.md").read_text(encoding="utf-8")
    assert "**Scale: harvest** (two ViTs on pictures of wheat and rye)." in table
    assert "Ears are told apart by their awns." in table
    index = (results / "README.md").read_text(encoding="utf-8")
    assert "- `harvest`: two ViTs on pictures of wheat and rye\n" in index
    (sheet,) = manifest.sheets(results)
    assert scale_notes.pictures(sheet) == "What looks like chaff is noise."
    page = report.build(results / "harvest")
    assert (
        "results, harvest scale" in page and "Scale: harvest (two ViTs on pictures of wheat and rye" in page
    )
    assert "It shows how a sorter of grain is inverted." in page
    for text in (table, index, page):
        assert not [word for word in STRANGERS if word in text]

"""Experiment "background": cells become tasks on Table 3's images, and records one row for each image source."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml_text

from bench import experiments
from bench.engine.plan import make_plan
from bench.engine.task import Sources
from bench.errors import BenchError
from bench.experiments.background import table
from bench.experiments.background.claims import CLAIMS
from bench.grid import load
from bench.publish.manifest import Sheet

GRIDS = Path(__file__).parents[4] / "experiments"


def built(tmp_path, change=lambda grid: None):
    grid = yaml_text.read(GRIDS / "background.yaml")
    change(grid)
    path = tmp_path / "background.yaml"
    path.write_text(yaml_text.dump(grid), encoding="utf-8")
    loaded = load(path)
    return loaded, experiments.build(loaded, "digits", Sources())


def test_shares_of_a_seed_share_images_which_are_table_3s(tmp_path):
    _, cells = built(tmp_path)
    assert Counter(task.kind for task in make_plan(cells).tasks) == {
        "teacher": 1,
        "images": 6 * 5,
        "background": 6 * 5 * 3,
    }
    table3 = make_plan(experiments.build(load(GRIDS / "table3.yaml"), "digits", Sources())).tasks
    theirs = {task.key for task in table3 if task.kind == "images"}
    ours = {entry.tasks["images"].key for entry in cells if entry.cell["seed"] < 3}
    assert ours <= theirs


@pytest.mark.parametrize("share", [0, 1, -0.5, True, "half"])
def test_what_is_no_share_is_refused(tmp_path, share):
    def change(grid):
        grid["scales"]["digits"]["axes"]["background"] = [0.5, share]

    with pytest.raises(BenchError, match=r"no share of the patches; allowed: numbers between 0 and 1"):
        built(tmp_path, change)


def test_images_without_a_source_are_refused(tmp_path):
    def change(grid):
        grid["methods"]["original"] = {"title": "Original", "source": "none"}

    with pytest.raises(BenchError, match=r"methods\.original\.source: there are no images without a source"):
        built(tmp_path, change)


def test_a_page_has_a_table_for_each_share_and_says_what_is_missing(tmp_path):
    loaded, cells = built(tmp_path)
    records = {}
    for entry in cells:
        cell, task = entry.cell, entry.tasks["background"]
        if cell["method"] == "real" and cell["seed"] == 4:
            continue
        metrics = {"patches": 19, "background_over_chance": 2.0 + cell["seed"]}
        for part in table.PARTS:
            metrics |= {f"{part}_probability": 10.0 * cell["background"], f"{part}_top1": 50.0}
        done = {"status": "done", "device": "d", "commit": None, "dirty": None, "versions": {}, "seconds": 1.0,
                "finished": "2026-01-01T00:00:00+00:00", "device_type": "cpu", "settings": {}}  # fmt: skip
        records[task.name] = {"kind": "background", "key": task.key, "metrics": metrics, **done}
    spec = loaded.scale("digits")
    entries = [{"cell": e.cell, "tasks": {k: t.name for k, t in e.tasks.items()}} for e in cells]
    sheet = Sheet("background", loaded.title, "background", "digits", "background", spec.about.model_dump(), "c",
                  loaded.methods, spec.settings, {}, entries, records)  # fmt: skip
    text = table.text(sheet)
    assert text.count("\n## ") == 4  # a table for each of three shares, and how it was made
    row = next(line for line in text.splitlines() if "DeepInversion (dense)" in line)
    assert "3.00 ± 0.00 (5)" in row and "4.00 ± 1.58 (5)" in row
    real = next(line for line in text.splitlines() if "Real images" in line)
    assert "3.50 ± 1.29 (4), not run" in real


def test_claims_read_what_the_task_gives():
    for claim in CLAIMS:
        for measure in claim.measures:
            assert measure.figure({"background_probability": 3.0, "background_over_chance": 2.0}) in (
                3.0,
                2.0,
            )

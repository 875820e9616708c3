"""Experiment "equal_seconds": Table 4's tasks with pools of other sizes, and one page of both pools."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml_text

from bench import experiments
from bench.engine.plan import make_plan
from bench.engine.task import Sources
from bench.errors import BenchError
from bench.experiments.equal_seconds import figure, table
from bench.grid import load
from bench.publish.figures.material import Material
from bench.publish.manifest import Sheet

GRIDS = Path(__file__).parents[4] / "experiments"


def built(tmp_path, change=lambda grid: None):
    grid = yaml_text.read(GRIDS / "equal_seconds.yaml")
    change(grid)
    path = tmp_path / "equal_seconds.yaml"
    path.write_text(yaml_text.dump(grid), encoding="utf-8")
    loaded = load(path)
    return loaded, experiments.build(loaded, "digits", Sources())


@pytest.fixture
def sheet(tmp_path):
    """All but noise done: as_many's sets take 4 s each, as_long's 8, and larger pools teach 10 points more."""
    loaded, cells = built(tmp_path)
    done = {"status": "done", "device": "d", "commit": None, "dirty": None, "versions": {}, "seconds": 1.0,
            "finished": "2026-01-01T00:00:00+00:00", "device_type": "cpu", "settings": {}}  # fmt: skip
    entries, records = [], {}
    for entry in cells:
        names = {column: task.name for column, task in entry.tasks.items()}
        sets = {c: t for c, t in entry.tasks["transfer"].inputs.items() if c.startswith("images_")}
        names |= {column: task.name for column, task in sets.items()}
        entries.append({"cell": dict(entry.cell), "tasks": names})
        if entry.cell["method"] == "noise_random_patches":
            continue
        long = entry.cell["pool"] == "as_long"
        count = len(sets) * 32
        metrics = {"top1": 50.0 + 10 * long + entry.cell["seed"], "images": count}
        records[names["transfer"]] = {"kind": "transfer", "key": "k", "metrics": metrics, **done}
        for task in sets.values():
            records[task.name] = {"kind": "images", "key": "k", "metrics": {"seconds": 4.0}, **done}
    spec = loaded.scale("digits")
    about = spec.about.model_dump()
    return Sheet("equal_seconds", loaded.title, "equal_seconds", "digits", "equal_seconds", about, "c", loaded.methods,
                 spec.model_dump()["settings"], {}, entries, records)  # fmt: skip


def test_equally_many_images_are_table_4s_and_cheap_ones_are_more(tmp_path):
    _, cells = built(tmp_path)
    kd = {
        task.key for task in make_plan(experiments.build(load(GRIDS / "kd.yaml"), "digits", Sources())).tasks
    }
    counts = {}
    for entry in cells:
        transfer = entry.tasks["transfer"]
        assert (transfer.key in kd) == (
            entry.cell["pool"] == "as_many"
            or entry.cell["method"] in ("deepinversion_dense", "dense_random_patches")
        )
        sets = [task for name, task in transfer.inputs.items() if name.startswith("images_")]
        counts[entry.cell["method"], entry.cell["pool"]] = sum(task.settings["count"] for task in sets)
    assert {count for (_, pool), count in counts.items() if pool == "as_many"} == {128}
    assert {method: count for (method, pool), count in counts.items() if pool == "as_long"} == {
        "deepinversion_dense": 128,
        "deepinversion_sparse": 320,
        "rebirth4": 576,
        "random_selection": 320,
        "dense_random_patches": 128,
        "noise_random_patches": 576,
    }


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"deepinversion": 64}, r"more\.deepinversion: unknown method 'deepinversion'"),
        ({"rebirth4": 100}, r"as_long\.set: 100 images a round are no multiple of a set of 32"),
    ],
)
def test_what_no_pool_can_be_is_refused(tmp_path, more, message):
    def change(grid):
        grid["scales"]["digits"]["settings"]["pools"]["as_long"]["more"] = more

    with pytest.raises(BenchError, match=message):
        built(tmp_path, change)


def test_the_page_has_both_pools_of_a_method_in_one_row(sheet):
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in table.text(sheet).splitlines()
        if line.startswith("|")
    }
    assert rows["DeepInversion (sparse)"] == [
        *("128", "16.0 ± 0.0 (3)", "51.00 ± 1.00 (3)"),
        *("320", "40.0 ± 0.0 (3)", "61.00 ± 1.00 (3)"),
    ]
    assert set(rows["control: noise, random patches"]) == {"3 not run"}


def test_the_figure_has_a_line_for_each_method_that_is_done(sheet, tmp_path):
    still = figure.draw(Material("digits", {"equal_seconds": sheet}, tmp_path))
    (axes,) = still.canvas.axes
    points = {line.get_label(): line[0].get_xydata().tolist() for line in axes.containers}
    assert points["Rebirth of 4 parts"] == [[16.0, 51.0], [72.0, 61.0]]
    assert len(points) == 5

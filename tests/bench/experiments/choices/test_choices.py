"""Experiment "choices": its cells are Table 3's and Table 4's tasks, and its page has one row for each choice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml_text

from bench import experiments
from bench.engine.plan import make_plan
from bench.engine.task import Sources
from bench.errors import BenchError
from bench.experiments.choices import table
from bench.grid import load
from bench.publish.manifest import Sheet

GRIDS = Path(__file__).parents[4] / "experiments"


@pytest.fixture
def cells(tmp_path):
    """A function that builds the digits scale of a grid, changed."""

    def cells(name="ablation_selection", change=lambda grid: None):
        grid = yaml_text.read(GRIDS / f"{name}.yaml")
        change(grid)
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml_text.dump(grid), encoding="utf-8")
        return experiments.build(load(path), "digits", Sources())

    return cells


def test_bits_share_images_and_student_and_the_first_set_calibrates(cells):
    built = cells()
    kinds = Counter(task.kind for task in make_plan(built).tasks)
    assert kinds == {"teacher": 1, "images": 6 * 3 * 4, "quantize": 6 * 3 * 2, "transfer": 6 * 3}
    tasks = built[0].tasks
    assert tasks["transfer"].inputs["images_000000"] == tasks["images"] == tasks["quantize"].inputs["images"]
    scores = {entry.cell["method"]: entry.tasks["images"].settings["score"] for entry in built}
    assert scores == {
        "cls_attention": "cls_attention", "least_attention": "least_attention", "random_selection": "random",
        "gradient_norm": "gradient_norm", "pixel_contrast": "pixel_contrast", "attention_rollout": "attention_rollout",
    }  # fmt: skip


def test_the_papers_row_is_that_of_tables_3_and_4(cells):
    ours = {
        task.key
        for task in make_plan(cells()).tasks
        if "cls_attention" in task.label or task.kind == "teacher"
    }
    theirs = set()
    for name in ("table3", "kd"):
        theirs |= {
            task.key
            for task in make_plan(experiments.build(load(GRIDS / f"{name}.yaml"), "digits", Sources())).tasks
        }
    alike = [task for task in make_plan(cells()).tasks if task.key in theirs]
    assert Counter(task.kind for task in alike)["transfer"] == 2 * 3 and ours  # attention, and chance


def test_every_schedule_ends_at_as_many_patches(cells):
    from smi.stopping import Stopping

    for entry in cells("ablation_schedule"):
        said = entry.tasks["images"].settings["stopping"]
        assert Stopping(tuple(said["at"]), tuple(said["drop"])).shown(64) == 14, entry.cell["method"]


def test_what_chooses_no_patches_is_refused(cells):
    def change(grid):
        grid["methods"]["real"] = {"title": "Real", "source": "real"}

    with pytest.raises(
        BenchError, match=r"methods\.real\.source: only inversions choose patches; allowed: inversion"
    ):
        cells(change=change)


def test_the_page_has_a_row_for_each_choice_and_says_what_was_not_run(cells):
    grid = load(GRIDS / "ablation_selection.yaml")
    built = cells()
    entries, records = [], {}
    for entry in built:
        names = {column: task.name for column, task in entry.tasks.items()}
        entries.append({"cell": dict(entry.cell), "tasks": names})
        seed, method = entry.cell["seed"], entry.cell["method"]
        if method != "pixel_contrast":
            done = {"status": "done", "device": "d", "commit": None, "dirty": None, "versions": {}, "seconds": 1.0,
                    "finished": "2026-01-01T00:00:00+00:00", "device_type": "cpu", "settings": {}}  # fmt: skip
            figures = {
                "images": {"sparsity": 50 / 64, "seconds": 4.0 + seed},
                "quantize": {"top1": 90.0 + seed, "agreement": 95.0, "logit_error": 0.1, "pictures": 540},
                "transfer": {"top1": 60.0 + 10 * seed, "pictures": 540},
            }
            for column, name in names.items():
                records[name] = {"kind": column, "key": name, "metrics": figures[column], **done}
    spec = grid.scale("digits")
    page = table.text(
        Sheet("ablation_selection", grid.title, "choices", "digits", "ablation_selection", spec.about.model_dump(), "c",
              grid.methods, spec.settings, {}, entries, records)
    )  # fmt: skip
    rows = {
        line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]]
        for line in page.splitlines()
        if "|" in line
    }
    assert rows["CLS attention (the paper's)"] == [
        "78.1%", "5.0 ± 1.0 (3)", "91.00 ± 1.00 (3)", "95.00 ± 0.00 (3)", "10.00 ± 0.00 (3) %",
        "91.00 ± 1.00 (3)", "95.00 ± 0.00 (3)", "10.00 ± 0.00 (3) %", "70.00 ± 10.00 (3)",
    ]  # fmt: skip
    assert set(rows["pixel contrast"]) == {"not run"}

"""The page of the iterations' ablation: which run is as good as the longest, and which is the best."""

from pathlib import Path

import pytest

from bench.engine.task import Sources
from bench.errors import BenchError
from bench.experiments import build
from bench.experiments.iterations import table as iterations
from bench.grid import load
from bench.publish.manifest import Sheet

EXPERIMENTS = Path(__file__).parents[4] / "experiments"

DONE = {
    "status": "done",
    "device": "Made-up",
    "device_type": "cpu",
    "versions": {"torch": "2.9"},
    "commit": "0123",
    "dirty": None,
    "finished": "2026-01-02T03:04:05",
    "seconds": 1.0,
}


def sheet_of(errors: dict[int, list[float]]) -> Sheet:
    """One method; errors: iterations -> logit error of each seed. An iteration takes a second."""
    records, cells = {}, []
    for length, found in errors.items():
        for seed, error in enumerate(found):
            names = {"images": f"images-{length}{seed}", "quantize": f"quantize-{length}{seed}"}
            records[names["images"]] = {
                **DONE,
                "metrics": {"kept": 14, "patches": 64, "seconds": float(length)},
            }
            records[names["quantize"]] = {**DONE, "metrics": {"top1": 90.0 + seed, "logit_error": error}}
            cell = {"model": "a_vit", "dataset": "d", "method": "m", "iterations": length, "bits": "W8/A8"}
            cells.append({"cell": {**cell, "seed": seed}, "tasks": names})
    return Sheet(
        *("ablation_iterations", "Quality", "iterations", "cifar", "ablation_iterations", {}),
        "python -m bench.sweep",
        *({"m": {"title": "Some method"}}, {}, {}, cells, records),
    )


def points(sheet: Sheet) -> dict[str, list[str]]:
    lines = iterations.text(sheet).partition("### Seconds to a calibrated model")[2].splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| Some")
    ]
    return {row[1]: row[2:] for row in rows}


@pytest.mark.parametrize(
    ("errors", "calibrated", "least"),
    [
        pytest.param({1: 0.3, 10: 0.109, 20: 0.108, 40: 0.1}, 10, 40, id="falls"),
        pytest.param({1: 0.3, 10: 0.05, 20: 0.2, 40: 0.1}, 40, 10, id="dips, rises and comes back"),
        pytest.param({1: 0.1, 10: 0.1, 20: 0.1, 40: 0.1}, 1, 1, id="flat"),
        pytest.param({40: 0.1, 20: 0.105, 1: 0.3, 10: 0.2}, 20, 40, id="axis in any order"),
    ],
)
def test_the_points_are_found_on_the_means_over_seeds(errors, calibrated, least):
    spread = {length: [error * 0.5, error * 1.5] for length, error in errors.items()}
    found = points(sheet_of(spread))
    assert {what: int(row[0]) for what, row in found.items()} == {
        "calibrated": calibrated,
        "least logit error": least,
        "longest run": 40,
    }
    for row in found.values():
        length = int(row[0])
        assert row[1:] == [f"{length:.2f}", f"{100 * errors[length]:.2f} %", "90.50"]


def test_what_was_not_run_is_a_hole():
    sheet = sheet_of({1: [0.2], 10: [0.1]})
    del sheet.records["quantize-100"]
    assert points(sheet)["longest run"][0] == "1"
    assert "not run" in iterations.text(sheet)
    assert "not run" in iterations.text(Sheet(**{**vars(sheet), "records": {}}))


def test_two_quantizers_have_tables_of_their_own():
    sheet = sheet_of({1: [0.2], 10: [0.1]})
    cells = [{**e, "cell": {**e["cell"], "quantizer": q}} for q in ("psaq", "repq") for e in sheet.cells]
    page = iterations.text(Sheet(**{**vars(sheet), "cells": cells}))
    assert "## a_vit on d, W8/A8, psaq\n" in page and "## a_vit on d, W8/A8, repq\n" in page


def test_the_iterations_that_suffice_are_stated_for_each_quantizer():
    sheet = sheet_of({1: [0.3], 10: [0.05], 20: [0.2], 40: [0.1]})
    assert "by quantizer" not in iterations.text(sheet), "only where the grid has the axis"
    cells = [{**e, "cell": {**e["cell"], "quantizer": "psaq"}} for e in sheet.cells]
    page = iterations.text(Sheet(**{**vars(sheet), "cells": cells}))
    lines = page.partition("by quantizer\n\n")[2].splitlines()
    stated = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert stated == ["a_vit", "d", "W8/A8", "psaq", "Some method", "40", "10", "40"]
    nothing = iterations.text(Sheet(**{**vars(sheet), "cells": cells, "records": {}}))
    assert "| psaq        | Some method | not run" in nothing


def test_the_axis_quantizer_adds_tasks_and_moves_none(tmp_path):
    text = (EXPERIMENTS / "ablation_iterations.yaml").read_text(encoding="utf-8")
    text = text.replace("      quantizer: [psaq, minmax_inputs, repq]\n", "")
    keys = {}
    for axis in ("", "      quantizer: [psaq, repq]\n"):
        path = tmp_path / "ablation_iterations.yaml"
        path.write_text(
            text.replace("      iterations: [1, 5", f"{axis}      iterations: [1, 5"), encoding="utf-8"
        )
        found = build(load(path), "digits", Sources())
        keys[axis] = {
            (entry.cell.get("quantizer"), column, task.key)
            for entry in found
            for column, task in entry.tasks.items()
        }
    plain, named = ({(column, key) for _, column, key in found} for found in keys.values())
    added = {
        (column, key)
        for quantizer, column, key in keys["      quantizer: [psaq, repq]\n"]
        if quantizer == "repq"
    }
    assert (
        plain < named and {column for column, _ in named - plain} == {"quantize"} and named == plain | added
    )


def test_an_unknown_quantizer_is_refused_at_its_place(tmp_path):
    text = (EXPERIMENTS / "ablation_iterations.yaml").read_text(encoding="utf-8")
    path = tmp_path / "ablation_iterations.yaml"
    path.write_text(text.replace("quantizer: [psaq, repq]", "quantizer: [psaq, nothing]"), encoding="utf-8")
    with pytest.raises(BenchError, match="unknown quantizer 'nothing'"):
        build(load(path), "paper", Sources())

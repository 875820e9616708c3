"""The grid behind the figures: what it shares with the tables, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml_text

from bench import experiments
from bench.engine.plan import make_plan
from bench.engine.provenance import ROOT
from bench.engine.task import Sources
from bench.errors import BenchError
from bench.grid import load

GRIDS = ROOT / "experiments"


def tasks(name: str, kind: str) -> set[str]:
    """Names of a grid's tasks of a kind at the digits scale."""
    cells = experiments.build(load(GRIDS / f"{name}.yaml"), "digits", Sources())
    return {task.name for task in make_plan(cells).tasks if task.kind == kind}


def test_figures_share_teacher_and_real_images_with_table3_and_so_does_the_ablation():
    teachers, images = tasks("table3", "teacher"), tasks("table3", "images")
    assert teachers < tasks("figures", "teacher")
    assert len(images & tasks("figures", "images")) == 1
    assert tasks("ablation_sparsity", "teacher") == teachers
    seeds, shared = 3, ("dense", "sparse", "random selection")
    assert len(images & tasks("ablation_sparsity", "images")) == seeds * len(shared)


def test_inversions_keep_start_stops_and_end_whatever_is_asked_for():
    grid = load(GRIDS / "figures.yaml")
    spec = grid.scale("digits").settings
    for entry in experiments.build(grid, "digits", Sources()):
        settings = entry.tasks["images"].settings
        if settings["source"] == "inversion":
            assert settings["targets"] == spec["targets"] and settings["count"] == len(spec["targets"])
            stops = spec["schedules"]["sparse77"]["at"]
            assert {0, *stops, settings["recipe"]["iterations"], *spec["snapshots"]} == set(
                settings["snapshots"]
            )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"targets": [0, 10]}, "0 to 9"),
        ({"targets": [-1]}, "targets"),
        ({"targets": []}, "targets"),
        ({"snapshots": [201]}, "0 to 200"),
        ({"class_names": ["zero"]}, "one for each target, or none"),
        ({"target": [1]}, "target"),
    ],
)
def test_bad_settings_name_the_line_and_what_is_allowed(tmp_path: Path, change, said):
    grid = yaml_text.read(GRIDS / "figures.yaml")
    settings = grid["scales"]["digits"]["settings"] | change
    grid["scales"] = {"digits": grid["scales"]["digits"] | {"settings": settings}}
    path = tmp_path / "figures.yaml"
    path.write_text(yaml_text.dump(grid), encoding="utf-8")
    with pytest.raises(BenchError) as error:
        experiments.build(load(path), "digits", Sources())
    assert said in str(error.value) and f"{path}, line " in str(error.value)
    assert "\n" not in str(error.value)

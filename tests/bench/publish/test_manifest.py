"""What results/ publishes is what experiments/ asks for now: a page whose tasks have changed is no page of its grid."""

from pathlib import Path

import pytest

from bench import experiments
from bench.engine.store import Store
from bench.engine.task import Sources
from bench.errors import BenchError
from bench.grid import load
from bench.publish import manifest

ROOT = Path(__file__).parents[3]
GRIDS = {
    path.stem for path in (ROOT / "experiments").glob("*.yaml")
}  # results may hold others, of the user's own
SHEETS = [  # of the scale whose data are at hand anywhere
    sheet for sheet in manifest.sheets(ROOT / "results") if sheet.scale == "digits" and sheet.grid in GRIDS
]


def test_every_digits_page_is_looked_at():
    assert {f"{sheet.grid}.md" for sheet in SHEETS} > {"table3.md", "ablation_iterations.md", "cost.md"}


def test_two_grids_of_one_scale_do_not_write_over_each_others_table(tmp_path):
    results, store = tmp_path / "results", Store(tmp_path / "store")
    other = tmp_path / "other.yaml"
    text = (ROOT / "experiments/kd.yaml").read_text(encoding="utf-8")
    other.write_text(text.replace("name: kd\n", "name: other\n", 1), encoding="utf-8")
    kd = load(ROOT / "experiments/kd.yaml")
    manifest.publish(kd, "digits", [], store, results, "first")
    manifest.publish(kd, "digits", [], store, results, "again")
    before = {path: path.read_bytes() for path in results.rglob("*.json")}
    with pytest.raises(
        BenchError, match=r"table4\.md is the table of the grid kd: give .*other\.yaml another name"
    ):
        manifest.publish(load(other), "digits", [], store, results, "second")
    assert {path: path.read_bytes() for path in results.rglob("*.json")} == before
    manifest.publish(load(other), "cifar", [], store, results, "another scale")


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.grid)
def test_a_published_page_shows_the_tasks_that_its_grid_asks_for(sheet):
    cells = experiments.build(load(ROOT / "experiments" / f"{sheet.grid}.yaml"), sheet.scale, Sources())
    assert [entry["cell"] for entry in sheet.cells] == [cell.cell for cell in cells]
    for entry, cell in zip(sheet.cells, cells, strict=True):
        wanted = {column: task.name for column, task in cell.tasks.items()}
        assert {column: entry["tasks"][column] for column in wanted} == wanted

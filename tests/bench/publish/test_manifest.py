"""What results/ publishes is what experiments/ asks for now: a page whose tasks have changed is no page of its grid."""

from pathlib import Path

import pytest

from bench import experiments
from bench.engine.task import Sources
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


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.grid)
def test_a_published_page_shows_the_tasks_that_its_grid_asks_for(sheet):
    cells = experiments.build(load(ROOT / "experiments" / f"{sheet.grid}.yaml"), sheet.scale, Sources())
    assert [entry["cell"] for entry in sheet.cells] == [cell.cell for cell in cells]
    for entry, cell in zip(sheet.cells, cells, strict=True):
        wanted = {column: task.name for column, task in cell.tasks.items()}
        assert {column: entry["tasks"][column] for column in wanted} == wanted

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
    before = {path: path.read_bytes() for path in results.rglob("*.jsonl")}
    with pytest.raises(
        BenchError, match=r"table4\.md is the table of the grid kd: give .*other\.yaml another name"
    ):
        manifest.publish(load(other), "digits", [], store, results, "second")
    assert {path: path.read_bytes() for path in results.rglob("*.jsonl")} == before
    manifest.publish(load(other), "cifar", [], store, results, "another scale")


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.grid)
def test_a_published_page_shows_the_tasks_that_its_grid_asks_for(sheet):
    cells = experiments.build(load(ROOT / "experiments" / f"{sheet.grid}.yaml"), sheet.scale, Sources())
    assert [entry["cell"] for entry in sheet.cells] == [cell.cell for cell in cells]
    for entry, cell in zip(sheet.cells, cells, strict=True):
        wanted = {column: task.name for column, task in cell.tasks.items()}
        assert {column: entry["tasks"][column] for column in wanted} == wanted


# ---- damaged files: one line that names file and line, and the remedy

TABLE3 = ROOT / "results/digits/records/table3.jsonl"


def damaged(tmp_path, change) -> str:
    """What is said of a copy of Table 3's file whose lines were changed."""
    path = tmp_path / "digits/records/table3.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(
        "".join(change(TABLE3.read_text(encoding="utf-8").splitlines(keepends=True))), encoding="utf-8"
    )
    with pytest.raises(BenchError) as caught:
        manifest.sheets(tmp_path)
    said = str(caught.value)
    assert (
        "table3.jsonl" in said
        and "remove it: the sweep of its grid writes it again" in said
        and "\n" not in said
    )
    return said


def test_a_broken_line_is_named_by_its_number(tmp_path):
    assert "line 3, is damaged" in damaged(
        tmp_path, lambda lines: [*lines[:2], lines[2][:30] + "\n", *lines[3:]]
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:-1],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [*lines[:-1], lines[-2]],
        lambda lines: [lines[0], *lines[2:]],
        lambda lines: [lines[1], *lines[1:]],
        lambda lines: ["[]\n"],
        lambda lines: [],
    ],
    ids=["cut short", "a line too many", "one twice", "no first cell", "no sheet", "other values", "empty"],
)
def test_lines_that_are_missing_or_stand_twice_are_noticed(change, tmp_path):
    assert "it lacks lines, or has some twice" in damaged(tmp_path, change)


def test_files_of_an_earlier_version_are_refused_in_one_line(tmp_path):
    folder = tmp_path / "digits/records"
    folder.mkdir(parents=True)
    for name in ("table3", "quantize-0123456789abcdef"):
        (folder / f"{name}.json").write_text("{}")
    with pytest.raises(
        BenchError, match=r"is of an earlier version, which wrote a file for each record: remove "
    ):
        manifest.sheets(tmp_path)

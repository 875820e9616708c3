"""Tables from records alone, at any time: also half-way through a sweep, holes shown as holes.

`render` is what a sweep calls. It publishes what the table is made of (bench/tables/published.py) and writes the
table from that, so `python -m bench.tables` makes the same files again without the store, the data or the weights.
To add a table, write a module with `text(sheet) -> str` and name it here by its grid's `experiment`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from bench import atomic
from bench.errors import BenchError
from bench.grid import Grid
from bench.plan import CellTasks
from bench.store import Store
from bench.tables import index, published, verdicts
from bench.tables.published import Sheet

TABLES = (  # experiments, each the name of its module here, imported when its table is written: pandas takes seconds
    "quantization",
    "deviations",
    "gallery",
    "transfer",
    "smoke",
    "cost",
    "inefficiency",
    "iterations",
)
WITH_PAGES = ("cost",)  # whose modules have `pages(sheet) -> {path below results/: text}` as well


def render(
    grid: Grid,
    scale: str,
    cells: Sequence[CellTasks],
    store: Store,
    results: Path,
    context: Mapping[str, Any],
) -> Path:
    """Publish the records behind a grid's table, write results/<scale>/<table>.md and the index; returns its path.

    context: {"command": the command that makes it}. Records that are not there are holes in the table.
    """
    published.publish(grid, scale, cells, store, results, context["command"])
    found, damaged = published.readable(results)
    own = next(sheet for sheet in found if (sheet.scale, sheet.grid) == (scale, grid.name))
    path = write(own, results)
    if damaged:  # another grid's: this one's table is written all the same
        raise damaged[0]
    if grid.experiment == published.COSTS:
        for sheet in found:
            if sheet.experiment in published.SHOW_COSTS:
                write(sheet, results)
    _summarise(results, found)
    return path


def render_again(results: Path) -> list[Path]:
    """Write every table and every page made of several, from what is published; returns their paths, if any."""
    found = published.sheets(results)
    if not found:
        return []
    return [*(write(sheet, results) for sheet in found), *_summarise(results, found)]


def _summarise(results: Path, found: Sequence[Sheet]) -> list[Path]:
    """Write the pages that are made of several tables: the index, and for scales that can tell, the paper's claims."""
    judged = verdicts.write(results, found)
    return [*judged, index.write(results, found, judged)]


def write(sheet: Sheet, results: Path) -> Path:
    """Write one table from what is published, returning the table's path."""
    if sheet.experiment not in TABLES:
        raise BenchError(f"no table for the experiment {sheet.experiment!r}; known: {', '.join(TABLES)}")
    module = import_module(f"{__name__}.{sheet.experiment}")
    path = results / sheet.scale / published.file_name(sheet)
    atomic.write_text(path, module.text(sheet))
    if sheet.experiment in WITH_PAGES:
        for page, text in module.pages(sheet).items():
            (results / page).parent.mkdir(parents=True, exist_ok=True)
            atomic.write_text(results / page, text)
    return path

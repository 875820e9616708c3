"""Tables from records alone, at any time: also half-way through a sweep, holes shown as holes.

`render` is what a sweep calls. It publishes what the table is made of (bench/tables/published.py) and writes the
table from that, so `python -m bench.tables` makes the same files again without the store, the data or the weights.
To add a table, write a module with `text(sheet) -> str` and name it here by its grid's `experiment`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import atomic
from bench.errors import BenchError
from bench.grid import Grid
from bench.plan import CellTasks
from bench.store import Store
from bench.tables import (
    cost,
    deviations,
    gallery,
    index,
    inefficiency,
    iterations,
    published,
    quantization,
    smoke,
    transfer,
)
from bench.tables.published import Sheet

TABLES: dict[str, Callable[[Sheet], str]] = {
    "quantization": quantization.text,
    "deviations": deviations.text,
    "gallery": gallery.text,
    "transfer": transfer.text,
    "smoke": smoke.text,
    "cost": cost.text,
    "inefficiency": inefficiency.text,
    "iterations": iterations.text,
}
PAGES: dict[str, Callable[[Sheet], dict[Path, str]]] = {  # further pages: path below results/ -> text
    "cost": cost.pages,
}


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
    sheet = published.publish(grid, scale, cells, store, results, context["command"])
    path = write(sheet, results)
    index.write(results)
    return path


def write(sheet: Sheet, results: Path) -> Path:
    """Write one table from what is published."""
    if sheet.experiment not in TABLES:
        raise BenchError(f"no table for the experiment {sheet.experiment!r}; known: {', '.join(TABLES)}")
    path = results / sheet.scale / published.file_name(sheet)
    atomic.write_text(path, TABLES[sheet.experiment](sheet))
    for page, text in PAGES.get(sheet.experiment, lambda _: {})(sheet).items():
        (results / page).parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(results / page, text)
    return path

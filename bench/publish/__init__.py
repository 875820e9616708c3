"""Tables from records alone, at any time: also half-way through a sweep, holes shown as holes.

`render` is what a sweep calls. It publishes what the table is made of (bench/publish/manifest.py) and writes the
table from that, so `python -m bench tables` makes the same files again without the store, the data or the weights.
What a table says is its experiment's (bench/experiments).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.engine import atomic
from bench.engine.plan import CellTasks
from bench.engine.store import Store
from bench.errors import BenchError
from bench.experiments import EXPERIMENTS, part
from bench.grid import Grid
from bench.publish import index, manifest
from bench.publish.manifest import Sheet


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
    manifest.publish(grid, scale, cells, store, results, context["command"])
    found, damaged = manifest.readable(results)
    own = next(sheet for sheet in found if (sheet.scale, sheet.grid) == (scale, grid.name))
    path = write(own, results)
    if damaged:  # another grid's: this one's table is written all the same
        raise damaged[0]
    for sheet in found:
        experiment = EXPERIMENTS.get(sheet.experiment)
        if experiment is not None and experiment.quotes == grid.experiment:
            write(sheet, results)
    _summarise(results, found)
    return path


def render_again(results: Path) -> list[Path]:
    """Write every table and every page made of several, from what is published; returns their paths, if any."""
    found = manifest.sheets(results)
    if not found:
        return []
    return [*(write(sheet, results) for sheet in found), *_summarise(results, found)]


def _summarise(results: Path, found: Sequence[Sheet]) -> list[Path]:
    """Write the pages that are made of several tables: the index, and for scales that can tell, the paper's claims."""
    from bench.publish.claims import page  # scipy and numpy, which a bad command line need not wait for

    judged = page.write(results, found)
    return [*judged, index.write(results, found, judged)]


def write(sheet: Sheet, results: Path) -> Path:
    """Write one table from what is published, returning the table's path."""
    if sheet.experiment not in EXPERIMENTS:
        raise BenchError(
            f"no table for the experiment {sheet.experiment!r}; known: {', '.join(EXPERIMENTS)}, and what a folder "
            "given with --include registers"
        )
    experiment = EXPERIMENTS[sheet.experiment]
    path = results / sheet.scale / manifest.file_name(sheet)
    atomic.write_text(path, part(experiment.table)(sheet))
    if experiment.pages is not None:
        for page, text in part(experiment.pages)(sheet).items():
            (results / page).parent.mkdir(parents=True, exist_ok=True)
            atomic.write_text(results / page, text)
    return path

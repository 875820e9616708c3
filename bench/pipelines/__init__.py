"""From cells to tasks: which tasks fill one cell of a grid, per experiment.

To add an experiment, write a module with `build(grid, scale, sources) -> list[CellTasks]` and name it here; its
table goes into bench/tables.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.grid import Grid
from bench.pipelines import cost, deviations, gallery, iterations, quantization, smoke, transfer
from bench.plan import CellTasks
from bench.task import Sources

PIPELINES: dict[str, Callable[[Grid, str, Sources], list[CellTasks]]] = {
    "quantization": quantization.build,
    "deviations": deviations.build,
    "gallery": gallery.build,
    "transfer": transfer.build,
    "smoke": smoke.build,
    "cost": cost.build,
    "inefficiency": cost.build,  # Table 1: the same tasks, another table
    "iterations": iterations.build,
}


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    """Every cell of a scale with its tasks. Raises BenchError (or SmiError) for whatever the grid or its sources
    get wrong, missing data and weights included: nothing has been done by then."""
    if grid.experiment not in PIPELINES:
        raise grid.error(("experiment",), f"unknown experiment {grid.experiment!r}", PIPELINES)
    return PIPELINES[grid.experiment](grid, scale, sources)

"""From cells to tasks: which tasks fill one cell of a grid, per experiment.

To add an experiment, write a module with `build(grid, scale, sources) -> list[CellTasks]` and name it here; its
table goes into bench/tables.
"""

from __future__ import annotations

from importlib import import_module

from bench.grid import Grid
from bench.plan import CellTasks
from bench.task import Sources

PIPELINES = {  # experiment -> its module here, imported when a grid asks for it: torch and timm take seconds
    "quantization": "quantization",
    "deviations": "deviations",
    "gallery": "gallery",
    "transfer": "transfer",
    "smoke": "smoke",
    "cost": "cost",
    "inefficiency": "cost",  # Table 1: the same tasks, another table
    "iterations": "iterations",
}


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    """Every cell of a scale with its tasks. Raises BenchError (or SmiError) for whatever the grid or its sources
    get wrong, missing data and weights included: nothing has been done by then."""
    if grid.experiment not in PIPELINES:
        raise grid.error(("experiment",), f"unknown experiment {grid.experiment!r}", PIPELINES)
    return import_module(f"{__name__}.{PIPELINES[grid.experiment]}").build(grid, scale, sources)

"""Experiments "cost" and "inefficiency" (cost half of Table 3, Table 1): what an iteration costs, one task a cell.

Neither weights nor data are needed: a random model of the real shape costs the same.
"""

from __future__ import annotations

from bench.engine.plan import CellTasks
from bench.engine.task import Sources
from bench.experiments.builders.cost import ENGINE, CostTaskBuilder
from bench.grid import Grid
from smi.errors import SmiError

AXES = ("model", "resolution", "method", "batch", "precision")


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    """The cost task of each cell."""
    builder = CostTaskBuilder(grid, scale, sources)
    builder.need_axes(*AXES, optional=(ENGINE,))
    cells = []
    for cell in grid.cells(scale):
        try:
            cells.append(CellTasks(cell, {"cost": builder.cost(**cell)}))
        except SmiError as error:
            raise grid.error(("scales", scale, "axes"), str(error)) from None
    return cells

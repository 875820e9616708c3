"""Experiment "transfer" (the paper's Table 4): teacher -> sets of images, one or more a round -> student."""

from __future__ import annotations

from bench.engine.plan import CellTasks
from bench.engine.task import Sources
from bench.experiments.builders.transfer import STUDENT, TransferTaskBuilder, cell_tasks, check_seeds
from bench.grid import Grid

AXES = ("model", "dataset", "method", "pool", "seed")


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    """Tasks of each cell: "evaluate" for the teacher itself (`source: none`), else "transfer" and what it needs."""
    builder = TransferTaskBuilder(grid, scale, sources)
    builder.need_axes(*AXES, optional=(STUDENT,))
    check_seeds(builder)
    return [CellTasks(cell, cell_tasks(builder, **cell)) for cell in grid.cells(scale)]

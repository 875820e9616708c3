"""Experiment "smoke": every kind of task once, on as little as will do, to try a machine or a cluster with."""

from __future__ import annotations

from bench.grid import Grid
from bench.pipelines import quantization, transfer
from bench.plan import CellTasks
from bench.task import Sources

AXES = ("model", "dataset", "method", "bits", "pool", "seed")


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    """The tasks of a cell of "quantization" and of one of "transfer"; where both ask for as many images they share
    them."""
    workshop = transfer.TransferWorkshop(grid, scale, sources)
    workshop.need_axes(*AXES)
    entries = []
    for cell in grid.cells(scale):
        shared = {axis: cell[axis] for axis in ("model", "dataset", "method", "seed")}
        tasks = quantization.cell_tasks(workshop, **shared, bits=cell["bits"])
        tasks |= transfer.cell_tasks(workshop, **shared, pool=cell["pool"])
        entries.append(CellTasks(cell, tasks))
    return entries

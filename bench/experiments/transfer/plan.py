"""Experiment "transfer" (the paper's Table 4): teacher -> sets of images, one or more a round -> student."""

from __future__ import annotations

from bench.engine.plan import CellTasks
from bench.engine.task import Sources
from bench.experiments.builders.transfer import SET_STRIDE, STUDENT, TransferTaskBuilder, cell_tasks
from bench.grid import Grid

AXES = ("model", "dataset", "method", "pool", "seed")


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    """Tasks of each cell: "evaluate" for the teacher itself (`source: none`), else "transfer" and what it needs."""
    builder = TransferTaskBuilder(grid, scale, sources)
    builder.need_axes(*AXES, optional=(STUDENT,))
    spec = grid.scale(scale)
    seeds = {("axes", "seed", index): seed for index, seed in enumerate(spec.axes["seed"])}
    seeds |= {
        ("include", i, "seed"): entry["seed"] for i, entry in enumerate(spec.include) if "seed" in entry
    }
    for where, seed in seeds.items():
        if seed >= SET_STRIDE:
            place = (*builder.here, *where)
            raise grid.error(place, f"{seed} is too great here", [f"whole numbers below {SET_STRIDE}"])
    return [CellTasks(cell, cell_tasks(builder, **cell)) for cell in grid.cells(scale)]

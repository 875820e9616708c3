"""Experiment "four_bits": the tasks of Table 3, for every quantizer.

The axis `quantizer` is part of the experiment. Teachers and images are Table 3's own tasks where settings agree.
"""

from __future__ import annotations

from bench.engine.plan import CellTasks
from bench.engine.task import Sources
from bench.experiments.builders.common import TaskBuilder
from bench.experiments.builders.quantization import AXES, QUANTIZER, cell_tasks, check_quantizers
from bench.grid import Grid


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    """Tasks of each cell: "evaluate" for the full-precision model, else "images" and "quantize"; none where the
    images cannot be had here."""
    builder = TaskBuilder(grid, scale, sources)
    builder.need_axes(*AXES, QUANTIZER)
    check_quantizers(builder)
    return [CellTasks(cell, cell_tasks(builder, **cell)) for cell in grid.cells(scale)]

"""Experiment "quantization" (the paper's Table 3): teacher -> images -> quantized model, held against the teacher.

W4/A8 and W8/A8 of a seed share one set of images; a method with `source: none` is the model in full precision.
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
    builder.need_axes(*AXES, optional=(QUANTIZER,))
    check_quantizers(builder)
    return [CellTasks(cell, cell_tasks(builder, **cell)) for cell in grid.cells(scale)]

"""Experiment "choices": the same images calibrate a quantized model and teach a student, one row for each choice.

A cell has the tasks of Table 3 (images, quantize) and of Table 4 (transfer); bit-widths of a seed share images and
student.
"""

from __future__ import annotations

from bench.engine.plan import CellTasks
from bench.engine.task import Sources
from bench.experiments.builders import quantization
from bench.experiments.builders.transfer import FRESH, TransferTaskBuilder, check_seeds
from bench.grid import Grid

AXES = ("model", "dataset", "method", "bits", "pool", "seed")


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    """Tasks "images", "quantize" and "transfer" of each cell; none where the images cannot be had here."""
    builder = TransferTaskBuilder(grid, scale, sources)
    builder.need_axes(*AXES)
    check_seeds(builder)
    for name, method in builder.methods.items():
        if method.source != "inversion":
            raise grid.error(("methods", name, "source"), "only inversions choose patches", ["inversion"])
    cells = []
    for cell in grid.cells(scale):
        model, dataset, method, bits, pool, seed = (cell[axis] for axis in AXES)
        tasks = quantization.cell_tasks(builder, model, dataset, method, bits, seed)
        taught = builder.transfer(model, dataset, method, pool, seed, FRESH)
        cells.append(CellTasks(cell, {**tasks, **taught}))
    return cells

"""Experiment "quantization" (the paper's Table 3): teacher -> images -> quantized model, held against the teacher.

W4/A8 and W8/A8 of a seed share one set of images; a method with `source: none` is the model in full precision.
"""

from __future__ import annotations

from bench.grid import Grid, parse_bits
from bench.pipelines.common import Workshop
from bench.plan import CellTasks
from bench.task import Sources, Task

AXES = ("model", "dataset", "method", "bits", "seed")


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    """Tasks of each cell: "evaluate" for the full-precision model, else "images" and "quantize"; none where the
    images cannot be had here."""
    workshop = Workshop(grid, scale, sources)
    workshop.need_axes(*AXES)
    return [CellTasks(cell, cell_tasks(workshop, **cell)) for cell in grid.cells(scale)]


def cell_tasks(
    workshop: Workshop, model: str, dataset: str, method: str, bits: str, seed: int
) -> dict[str, Task]:
    """What one cell of the grid needs, by column."""
    teacher = workshop.teacher(model, dataset)
    test = {"test": workshop.split(dataset, "test")}
    if workshop.methods[method].source == "none":
        label = f"evaluate {model} full precision"
        return {"evaluate": workshop.task("evaluate", test, {"teacher": teacher}, label)}
    images = workshop.images(model, dataset, method, seed)
    if images is None:
        return {}
    weight_bits, activation_bits = parse_bits(bits)
    settings = {"weight_bits": weight_bits, "activation_bits": activation_bits, **test}
    label = f"quantize {model} {method} {bits} seed {seed}"
    inputs = {"teacher": teacher, "images": images}
    return {"images": images, "quantize": workshop.task("quantize", settings, inputs, label)}

"""Experiment "background": what a model sees in the least attended patches of images alone (bench/tasks/background.py).

Images are those of Table 3, where their settings are the same; shares of one seed share them.
"""

from __future__ import annotations

from bench.engine.plan import CellTasks
from bench.engine.task import Sources, Task
from bench.experiments.builders import seeds
from bench.experiments.builders.common import TaskBuilder
from bench.grid import Grid
from smi.errors import SmiError

SHARE = "background"  # an axis: shares of the patches
AXES = ("model", "dataset", "method", SHARE, "seed")


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    """Tasks "images" and "background" of each cell; none where the images cannot be had here."""
    builder = TaskBuilder(grid, scale, sources)
    builder.need_axes(*AXES)
    for name, method in builder.methods.items():
        if method.source == "none":
            raise grid.error(("methods", name, "source"), "there are no images without a source")
    for place, share in builder.values_of(SHARE):
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
            message = f"{share!r} is no share of the patches"
            raise grid.error(place, message, ["numbers between 0 and 1"])
    for place, model in builder.values_of("model"):
        try:
            builder.outline(model).need_class_token()
        except SmiError as error:
            raise grid.error(place, str(error)) from None
    return [CellTasks(cell, _tasks(builder, *(cell[axis] for axis in AXES))) for cell in grid.cells(scale)]


def _tasks(
    builder: TaskBuilder, model: str, dataset: str, method: str, share: float, seed: int
) -> dict[str, Task]:
    images = builder.images(model, dataset, method, seed)
    if images is None:
        return {}
    settings = {"share": share, "seed": seeds.of_cell(builder, model, seed)}
    inputs = {"teacher": builder.teacher(model, dataset), "images": images}
    label = f"background {model} {method} {share} seed {seed}"
    return {"images": images, "background": builder.task("background", settings, inputs, label)}

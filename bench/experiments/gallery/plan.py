"""Experiment "gallery" (the paper's Figures 5 to 7): images to look at, of chosen classes, and how they came about.

Inversions keep a picture at the start, at every stop, at the end and at the scale's `snapshots`. Teachers, and images
that are not inverted, are those of the other grids.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field

from bench.engine.plan import CellTasks
from bench.engine.task import Sources, Task
from bench.experiments.builders.common import TaskBuilder
from bench.experiments.builders.schemas import Settings
from bench.grid import Grid

AXES = ("model", "dataset", "method", "seed")


class GallerySettings(Settings):
    """targets: the class of each inverted image, and so their number; class_names: what those classes are called;
    snapshots: iterations whose pictures are kept, besides start, stops and end."""

    targets: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    class_names: list[str] = []
    snapshots: list[Annotated[int, Field(ge=0)]] = []


class Gallery(TaskBuilder):
    """A builder whose inversions are of chosen classes and keep snapshots."""

    settings_schema: ClassVar = GallerySettings

    def pictures(self, model: str, dataset: str, method: str, seed: int) -> Task | None:
        """A method's images; None where real images are not here."""
        if self.methods[method].source != "inversion":
            return self.images(model, dataset, method, seed)
        chosen = self.settings
        if chosen.class_names and len(chosen.class_names) != len(chosen.targets):
            place = (*self.here, "settings", "class_names")
            message = f"{len(chosen.class_names)} names for {len(chosen.targets)} targets"
            raise self.grid.error(place, message, ["one for each target, or none"])
        task = self.images(model, dataset, method, seed, count=len(chosen.targets))
        iterations = task.settings["recipe"]["iterations"]
        classes = self.classes(dataset)
        self._check("targets", chosen.targets, classes - 1, f"the classes of {model}")
        self._check("snapshots", chosen.snapshots, iterations, f"the iterations of {method}")
        stops = {stop for schedule in chosen.schedules.values() for stop in schedule.at if stop <= iterations}
        snapshots = sorted({0, iterations, *stops, *chosen.snapshots})
        return replace(task, settings={**task.settings, "targets": chosen.targets, "snapshots": snapshots})

    def _check(self, key: str, values: list[int], most: int, what: str) -> None:
        for index, value in enumerate(values):
            if value > most:
                place = (*self.here, "settings", key, index)
                raise self.grid.error(place, f"{value} lies outside {what}", [f"0 to {most}"])


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    """The images of each cell; no task where they cannot be had here."""
    builder = Gallery(grid, scale, sources)
    builder.need_axes(*AXES)
    cells = []
    for cell in grid.cells(scale):
        task = builder.pictures(**cell)
        cells.append(CellTasks(cell, {} if task is None else {"images": task}))
    return cells

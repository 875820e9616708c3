"""What the picture figures share: the images of the grid `figures`, by model and method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import smi
from bench.publish.figures.material import Material, NotMade, Row
from bench.publish.figures.style import drawn

GRID = "figures"


@dataclass(frozen=True)
class Shown:
    """One row's worth of images: a finished task of kind "images" and what it made."""

    material: Material
    row: Row

    @property
    def settings(self) -> dict[str, Any]:
        """Of the task that made them."""
        return self.row.records["images"]["settings"]

    @property
    def model(self) -> str:
        return self.row.cell["model"]

    @property
    def label(self) -> str:
        """The method's title, in short lines."""
        return self.material.title(GRID, self.row.cell["method"]).replace(" (", "\n(")

    @property
    def inverted(self) -> bool:
        return self.settings["source"] == "inversion"

    @property
    def sparse(self) -> bool:
        return self.images.kept is not None

    @cached_property
    def images(self) -> smi.SyntheticImages:
        return self.material.images(self.row.records["images"])

    @property
    def snapshots(self) -> Sequence[int]:
        """Iterations whose pictures were kept."""
        return self.images.made.get("snapshots", []) if "snapshot_pixels" in self.images.traces else []

    @property
    def stops(self) -> Sequence[int]:
        """Iterations before which patches stop; none when dense."""
        stopping = self.images.made.get("stopping")
        return stopping["at"] if stopping else []

    def shot(self, iteration: int) -> int:
        """Position of an iteration among the snapshots. Raises NotMade if it was not kept."""
        if iteration not in self.snapshots:
            raise NotMade(
                f"{self.row.records['images']['label']}: no snapshot at {iteration} (the grid {GRID})"
            )
        return list(self.snapshots).index(iteration)

    def describe(self) -> str:
        """For a row's label: the method, and how many of the patches were inverted to the end."""
        patches = self.images.grid.patches
        kept = f"{self.images.kept.shape[1]} of" if self.sparse else "all"
        return f"{self.label}\n{kept} {patches} patches"


def shown(material: Material, model: str | None = None) -> list[Shown]:
    """The grid's finished images, of one model or of all: each model's of its first cell's data and the first seed."""
    rows = material.rows(GRID, "images")
    rows = [row for row in rows if row.cell["seed"] == rows[0].cell["seed"]]
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row.cell["model"], row.place("method"))
    chosen = [
        row
        for row in rows
        if row.place("method") == first[row.cell["model"]] and model in (None, row.cell["model"])
    ]
    if not chosen:
        raise NotMade(f"no finished images of {model}; make them: {material.command(GRID)}")
    material.used[GRID] = chosen
    return [Shown(material, row) for row in chosen]


def main_model(material: Material) -> str:
    """The model that all figures but the one on patch sizes show: the grid's first."""
    return str(material.sheet(GRID).cells[0]["cell"]["model"])


def sparse_run(material: Material) -> Shown:
    """The main model's sparse inversion with snapshots."""
    for run in shown(material, main_model(material)):
        if run.inverted and run.sparse and run.snapshots:
            material.used[GRID] = [run.row]
            return run
    raise NotMade(f"no finished sparse inversion with snapshots; make it: {material.command(GRID)}")


def dense_run(material: Material) -> Shown | None:
    """The main model's dense inversion with snapshots, if there is one."""
    runs = shown(material, main_model(material))
    return next((run for run in runs if run.inverted and run.snapshots and not run.sparse), None)


def class_name(material: Material, target: int) -> str:
    """What a class is called in the grid's settings; its number otherwise."""
    settings = material.sheet(GRID).settings
    names = dict(zip(settings.get("targets", []), settings.get("class_names", []), strict=False))
    return drawn(str(names.get(target, f"class {target}")))

"""Experiment "deploy": cells whose method makes images ask for answers, those without (source none) for speed."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from bench import models
from bench.engine.plan import CellTasks
from bench.engine.task import Sources, Task
from bench.experiments.builders.common import TaskBuilder
from bench.experiments.builders.quantization import check_quantizers
from bench.experiments.builders.schemas import Settings
from bench.grid import Grid, parse_bits
from smi.quantization import PROFILES

AXES = ("model", "dataset", "method", "bits", "quantizer", "profile", "seed")


class DeploySettings(Settings):
    """batches: pictures at a time, for speed; repetitions: turns of each engine."""

    batches: list[Annotated[int, Field(ge=1)]] = [1, 8]
    repetitions: Annotated[int, Field(ge=3, le=1000)] = 15


class DeployTaskBuilder(TaskBuilder):
    """The tasks of one cell."""

    settings_schema: ClassVar = DeploySettings

    def cell_tasks(
        self, model: str, dataset: str, method: str, bits: str, quantizer: str, profile: str, seed: int
    ) -> dict[str, Task]:
        if profile not in PROFILES:
            raise self.grid.error((*self.here, "axes", "profile"), f"unknown profile {profile!r}", PROFILES)
        weight_bits, activation_bits = parse_bits(bits)
        settings: dict[str, Any] = {"weight_bits": weight_bits, "activation_bits": activation_bits}
        settings |= {"quantizer": quantizer, "profile": profile}
        label = f"deploy {model} {bits} {quantizer} {profile}"
        if self.methods[method].source == "none":
            settings["model"] = models.describe(model, self.sources, weights=False)
            settings |= {"batches": self.settings.batches, "repetitions": self.settings.repetitions}
            return {"deploy": self.task("deploy", settings, {}, f"{label} speed")}
        images = self.images(model, dataset, method, seed)
        if images is None:
            return {}
        inputs = {"teacher": self.teacher(model, dataset), "images": images}
        settings["test"] = self.split(dataset, "test")
        return {
            "images": images,
            "deploy": self.task("deploy", settings, inputs, f"{label} {method} seed {seed}"),
        }


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    """Tasks "images" and "deploy" of each cell."""
    builder = DeployTaskBuilder(grid, scale, sources)
    builder.need_axes(*AXES)
    check_quantizers(builder)
    return [CellTasks(cell, builder.cell_tasks(**cell)) for cell in grid.cells(scale)]

"""Tasks that measure what an iteration costs: no weights and no data, a random model will do."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from bench import models
from bench.engine.task import Task
from bench.experiments.builders.common import TaskBuilder
from bench.experiments.builders.schemas import Method, Settings
from bench.tasks.engines import MODES
from smi.device import PRECISIONS

ENGINE = "engine"  # an axis that may be absent: eager
Beside = Literal["reference", "smi_dense", "reference_dense"]


class CostSettings(Settings):
    """repetitions: iterations measured of each engine at most (fewer where they are slow); warmup: before them."""

    repetitions: Annotated[int, Field(ge=3, le=1000)] = 15
    warmup: Annotated[int, Field(ge=1, le=100)] = 2


class CostMethod(Method):
    """beside: what takes turns with the method, to be compared with (engines of bench.tasks.measurement.measure)."""

    beside: list[Beside] = []


class CostTaskBuilder(TaskBuilder):
    """Cost tasks, checked as the other experiments' are."""

    settings_schema: ClassVar = CostSettings
    method_schema: ClassVar = CostMethod

    def cost(
        self, model: str, resolution: int, method: str, batch: int, precision: str, engine: str = "eager"
    ) -> Task:
        wanted = self.methods[method]
        if wanted.source != "inversion":
            raise self.grid.error(("methods", method, "source"), "only inversions have a cost", ["inversion"])
        for axis, value in {"batch": batch, "resolution": resolution}.items():
            if type(value) is not int or value < 1:
                message = f"{value!r} is no {axis}"
                raise self.grid.error((*self.here, "axes", axis), message, ["whole numbers >= 1"])
        if precision not in PRECISIONS:
            place = (*self.here, "axes", "precision")
            raise self.grid.error(place, f"unknown precision {precision!r}", PRECISIONS)
        if engine not in MODES:
            raise self.grid.error((*self.here, "axes", ENGINE), f"unknown engine {engine!r}", MODES)
        described = models.describe(model, self.sources, weights=False)
        shape = models.outline(described)
        own = getattr(shape, "patch_embed", None)
        if own is not None and (resolution, resolution) != tuple(own.img_size):
            message = f"{model} takes {own.img_size[0]} pixels a side, not {resolution}"
            raise self.grid.error((*self.here, "axes", "resolution"), message)
        if own is None and (wanted.stopping is not None or wanted.beside):
            raise self.grid.error(("methods", method), f"{model} has no patches to stop and no reference")
        settings: dict[str, Any] = {
            "model": described,
            "resolution": resolution,
            "batch": batch,
            "precision": precision,
            "beside": wanted.beside,
            "repetitions": self.settings.repetitions,
            "warmup": self.settings.warmup,
        } | self._stages(method, wanted)
        label = f"cost {model} {resolution} {method} batch {batch} {precision}"
        if engine != "eager":  # our own dense inversion is a cell by itself, and would be compiled once more
            beside = ["smi_eager", *(other for other in wanted.beside if other != "smi_dense")]
            settings |= {"engine": engine, "beside": beside}
            label += f" {engine}"
        return self.task("cost", settings, {}, label)

    def _stages(self, name: str, method: CostMethod) -> dict[str, Any]:
        chosen = self._inversion(name, method)
        if "reenter_every" in (chosen["stopping"] or {}):
            # at each ranking whole images go through, which no stage's time holds
            place = (*self.here, "settings", "schedules", str(method.stopping), "reenter_every")
            message = "what ranking all patches anew costs is not measured"
            raise self.grid.error(place, message, ["schedules without it"])
        return {"recipe": chosen["recipe"], "stopping": chosen["stopping"]}

"""Experiment "deviations": what each of the published code's deviations from the paper does to a quantized model.

As the experiment "quantization", with two more settings of a method: `deviations`, names of smi.published, and
`quantizer`, a name of smi.QUANTIZERS.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.engine.plan import CellTasks
from bench.engine.task import Sources
from bench.experiments.builders import common, schemas
from bench.experiments.builders.quantization import AXES, DEFAULT, cell_tasks, quantizer_settings
from bench.grid import Grid
from smi.published import OF_CALIBRATION, OF_INVERSION
from smi.quantization import QUANTIZERS


class Method(schemas.Method):
    """deviations: those of the inversion and of the calibration, in one list."""

    deviations: list[str] = []
    quantizer: str = DEFAULT


class TaskBuilder(common.TaskBuilder):
    """Adds the deviations to the settings of the tasks that they change, and to no others."""

    method_schema = Method

    def _method(self, name: str) -> Method:
        method = super()._method(name)
        if method.quantizer not in QUANTIZERS:
            message = f"unknown quantizer {method.quantizer!r}"
            raise self.grid.error(("methods", name, "quantizer"), message, QUANTIZERS)
        known = {**OF_INVERSION, **OF_CALIBRATION}
        for position, deviation in enumerate(method.deviations):
            here = ("methods", name, "deviations", position)
            if deviation not in known:
                raise self.grid.error(here, f"unknown deviation {deviation!r}", known)
            if deviation in OF_INVERSION and method.source != "inversion":
                raise self.grid.error(here, f"{deviation!r} is a deviation of inversions")
        return method

    def _inversion(self, name: str, method: Method) -> dict[str, Any]:
        return super()._inversion(name, method) | self.of(method, OF_INVERSION)

    def of(self, method: Method, kind: Any) -> dict[str, Any]:
        """{"deviations": [...]} with the method's deviations of one kind; {} without any, to share its tasks."""
        chosen = sorted(set(method.deviations) & set(kind))
        return {"deviations": chosen} if chosen else {}


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    """Tasks of each cell, as of the experiment "quantization"."""
    builder = TaskBuilder(grid, scale, sources)
    builder.need_axes(*AXES)
    cells = []
    for cell in grid.cells(scale):
        tasks = cell_tasks(builder, **cell)
        method = builder.methods[cell["method"]]
        more = builder.of(method, OF_CALIBRATION) | quantizer_settings(method.quantizer)
        if more and "quantize" in tasks:
            task = tasks["quantize"]
            tasks["quantize"] = replace(task, settings={**task.settings, **more})
        cells.append(CellTasks(cell, tasks))
    return cells

"""Experiment "smoke": every kind of task once, on as little as will do, to try a machine or a cluster with."""

from __future__ import annotations

from typing import ClassVar

from bench.engine.plan import CellTasks
from bench.engine.task import Sources, Task
from bench.experiments.builders import cost, quantization, transfer
from bench.grid import Grid

AXES = ("model", "dataset", "method", "bits", "pool", "seed", "cost_model")


class SmokeSettings(transfer.TransferSettings, cost.CostSettings):
    """The settings of all experiments."""


class SmokeMethod(transfer.TransferMethod, cost.CostMethod):
    """A method of any experiment."""


class SmokeTaskBuilder(transfer.TransferTaskBuilder, cost.CostTaskBuilder):
    """Makes the tasks of any experiment."""

    settings_schema: ClassVar = SmokeSettings
    method_schema: ClassVar = SmokeMethod


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    """The tasks of a cell of "quantization", of one of "transfer" and, for an inversion, of one of "cost", "deploy" and
    "background"; all that ask for as many images share them."""
    builder = SmokeTaskBuilder(grid, scale, sources)
    builder.need_axes(*AXES)
    entries = []
    for cell in grid.cells(scale):
        model, method = cell["model"], cell["method"]
        shared = {"model": model, "dataset": cell["dataset"], "method": method, "seed": cell["seed"]}
        tasks = quantization.cell_tasks(builder, **shared, bits=cell["bits"])
        tasks |= transfer.cell_tasks(builder, **shared, pool=cell["pool"])
        if builder.methods[method].source == "inversion":
            measured = cell["cost_model"]
            size = builder.outline(measured).grid.height
            tasks["cost"] = builder.cost(measured, size, method, batch=1, precision="fp32")
            tasks["deploy"] = _deployed(builder, tasks["quantize"])
            tasks["background"] = _looked_at(builder, tasks["quantize"])
        entries.append(CellTasks(cell, tasks))
    return entries


def _deployed(builder: SmokeTaskBuilder, quantized: Task) -> Task:
    """The file of what a task "quantize" quantizes."""
    names = ("weight_bits", "activation_bits", "test")
    settings = {name: quantized.settings[name] for name in names}
    settings |= {"quantizer": "psaq", "profile": "integer"}
    return builder.task("deploy", settings, quantized.inputs, f"deploy: {quantized.label}")


def _looked_at(builder: SmokeTaskBuilder, quantized: Task) -> Task:
    """The background of the images that a task "quantize" calibrates with."""
    settings = {"share": 0.5, "seed": 0}
    return builder.task("background", settings, quantized.inputs, f"background: {quantized.label}")

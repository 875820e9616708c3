"""Experiment "iterations": quality of the quantized model against the iterations, and so the seconds, of inversion.

Each cell is an inversion of that length. A sparse one that ends before all stops are due has had only those stops: with
a constant learning rate it is the beginning of the longer ones. With the axis `quantizer` each inversion serves all
quantizers; without it, the paper's.
"""

from __future__ import annotations

from bench.engine.plan import CellTasks
from bench.engine.task import Sources, Task
from bench.experiments.builders.common import TaskBuilder
from bench.experiments.builders.quantization import DEFAULT, QUANTIZER, check_quantizers, quantizer_settings
from bench.grid import Grid, parse_bits
from smi.errors import SmiError

AXES = ("model", "dataset", "method", "iterations", "bits", "seed")


class Lengths(TaskBuilder):
    """A builder whose inversions end when the cell says."""

    length: int

    def _inversion(self, name, method):
        """Those of the scale's recipe, cut to `length` iterations and to the stops that come before."""
        settings = super()._inversion(name, method)
        recipe, stopping = settings["recipe"], settings["stopping"]
        if recipe["schedule"] != "constant" or recipe["rounds"] != 1:
            message = f"recipe {method.recipe} changes its learning rate with its length"
            raise self.grid.error(("methods", name, "recipe"), message, ["recipes with a constant one"])
        if self.length > recipe["iterations"]:
            place = (*self.here, "axes", "iterations")
            raise self.grid.error(place, f"{self.length} is too long", [f"1 to {recipe['iterations']}"])
        settings = {**settings, "recipe": {**recipe, "iterations": self.length}}
        if stopping is None:
            return settings
        if "rebirth" in stopping:
            schedule = self.schedule(method.stopping)
            if schedule.at is not None:
                place = (*self.here, "settings", "schedules", method.stopping, "at")
                message = "parts of inversions of many lengths leave at equal distances; drop at"
                raise self.grid.error(place, message, ["rebirth alone"])
            try:
                return {**settings, "stopping": schedule.resolved(self.length).to_json()}
            except SmiError as error:
                raise self.grid.error((*self.here, "axes", "iterations"), f"{self.length}: {error}") from None
        reached = [
            pair for pair in zip(stopping["at"], stopping["drop"], strict=True) if pair[0] < self.length
        ]
        if not reached:
            return {**settings, "stopping": None, "score": None}
        at, drop = ([pair[index] for pair in reached] for index in (0, 1))
        return {**settings, "stopping": {**stopping, "at": at, "drop": drop}}


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    """Tasks "images" and "quantize" of each cell."""
    builder = Lengths(grid, scale, sources)
    builder.need_axes(*AXES, optional=(QUANTIZER,))
    check_quantizers(builder)
    for place, length in builder.values_of("iterations"):
        if type(length) is not int or length < 1:
            raise grid.error(place, f"{length!r} is no number of iterations", ["whole numbers >= 1"])
    return [CellTasks(cell, _tasks(builder, **cell)) for cell in grid.cells(scale)]


def _tasks(
    builder: Lengths,
    model: str,
    dataset: str,
    method: str,
    iterations: int,
    bits: str,
    seed: int,
    quantizer: str = DEFAULT,
) -> dict[str, Task]:
    if builder.methods[method].source != "inversion":
        raise builder.grid.error(
            ("methods", method, "source"), "only inversions have iterations", ["inversion"]
        )
    builder.length = iterations
    images = builder.images(model, dataset, method, seed)
    weight_bits, activation_bits = parse_bits(bits)
    settings = {
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "test": builder.split(dataset, "test"),
        **quantizer_settings(quantizer),
    }
    label = f"quantize {model} {method} {iterations} iterations {bits} seed {seed}"
    label += "" if quantizer == DEFAULT else f" by {quantizer}"
    inputs = {"teacher": builder.teacher(model, dataset), "images": images}
    return {"images": images, "quantize": builder.task("quantize", settings, inputs, label)}

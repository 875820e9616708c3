"""Tasks of a data-free quantization: teacher -> images -> quantized model, held against the teacher."""

from __future__ import annotations

from bench.engine.task import Task
from bench.experiments.builders.common import TaskBuilder
from bench.grid import parse_bits

AXES = ("model", "dataset", "method", "bits", "seed")


def cell_tasks(
    builder: TaskBuilder, model: str, dataset: str, method: str, bits: str, seed: int
) -> dict[str, Task]:
    """What one cell of the grid needs, by column."""
    teacher = builder.teacher(model, dataset)
    test = {"test": builder.split(dataset, "test")}
    if builder.methods[method].source == "none":
        label = f"evaluate {model} full precision"
        return {"evaluate": builder.task("evaluate", test, {"teacher": teacher}, label)}
    images = builder.images(model, dataset, method, seed)
    if images is None:
        return {}
    weight_bits, activation_bits = parse_bits(bits)
    settings = {"weight_bits": weight_bits, "activation_bits": activation_bits, **test}
    label = f"quantize {model} {method} {bits} seed {seed}"
    inputs = {"teacher": teacher, "images": images}
    return {"images": images, "quantize": builder.task("quantize", settings, inputs, label)}

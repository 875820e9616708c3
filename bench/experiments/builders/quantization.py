"""Tasks of a data-free quantization: teacher -> images -> quantized model, held against the teacher."""

from __future__ import annotations

from bench.engine.task import Task
from bench.experiments.builders.common import TaskBuilder
from bench.grid import parse_bits
from smi.quantization import QUANTIZERS

AXES = ("model", "dataset", "method", "bits", "seed")
QUANTIZER = "quantizer"  # an axis that a grid may have: names of smi.QUANTIZERS
DEFAULT = "psaq"


def check_quantizers(builder: TaskBuilder) -> None:
    """GridError at the first value of the axis that is no quantizer."""
    for index, name in enumerate(builder.grid.scale(builder.scale).axes.get(QUANTIZER, ())):
        if name not in QUANTIZERS:
            place = (*builder.here, "axes", QUANTIZER, index)
            raise builder.grid.error(place, f"unknown quantizer {name!r}", QUANTIZERS)


def quantizer_settings(name: str) -> dict[str, str]:
    """What a quantizer adds to the settings of a task "quantize": nothing where it is the default.

    The slides' one goes by the name that it had when its published records got their keys.
    """
    if name == DEFAULT:
        return {}
    return {"formula" if name == "slides" else QUANTIZER: name}


def cell_tasks(
    builder: TaskBuilder,
    model: str,
    dataset: str,
    method: str,
    bits: str,
    seed: int,
    quantizer: str = DEFAULT,
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
    settings |= quantizer_settings(quantizer)
    label = f"quantize {model} {method} {bits} seed {seed}"
    label += "" if quantizer == DEFAULT else f" by {quantizer}"
    inputs = {"teacher": teacher, "images": images}
    return {"images": images, "quantize": builder.task("quantize", settings, inputs, label)}

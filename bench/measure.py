"""One measurement of what an inversion's iterations cost, in a process of its own.

`python -m bench.measure REQUEST ANSWER` reads a request (JSON: see `Request`) and writes the figures. Engines of one
request take turns, iteration by iteration, so that whatever else the machine does meets them alike. Warm-up is apart,
the device's queue is emptied around every figure, and every iteration's seconds are handed back.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import smi
from bench import models
from bench.reference import PublishedInversion
from smi.cnn import ConvModel, handles
from smi.loop import Batch, Plan, iterate
from smi.stopping import random as any_score
from smi.vit import adapt, halved, normalisation

SECONDS = 10.0  # after which no further repetition is begun; at least MINIMUM are made
MINIMUM = 3
MIB = 2**20
ENGINES = ("smi", "reference", "smi_dense", "reference_dense")  # the last two keep all patches


@dataclass(frozen=True)
class Request:
    """model: bench.models description; resolution: pixels a side; recipe: JSON; kept: patches of the measured stage,
    None when dense; stages: kept patches of the other stages, of which a few iterations are timed.

    what: "time" (iterations of all `engines`, taking turns) or "memory" (of the first engine).
    engines: of ENGINES. precision is smi's; the reference runs in fp32.
    """

    model: Mapping[str, Any]
    resolution: int
    recipe: Mapping[str, Any]
    kept: int | None
    stages: Sequence[int | None]
    batch: int
    precision: str
    engines: Sequence[str]
    repetitions: int
    warmup: int
    device: str
    what: str


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def saved_bytes(function: Callable[[], Any], apart: Iterable[Tensor] = ()) -> int:
    """The most bytes that lie saved for a backward pass at once while a function runs, each storage once.

    apart: tensors that do not count, such as weights, which are there anyway.
    """
    alive: dict[int, int] = {tensor.untyped_storage().data_ptr(): 0 for tensor in apart}
    most = 0

    class Held:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal most
            storage = tensor.untyped_storage()
            self.tensor, self.place, self.new = tensor, storage.data_ptr(), storage.data_ptr() not in alive
            if self.new:
                alive[self.place] = storage.nbytes()
                most = max(most, sum(alive.values()))

        def __del__(self) -> None:
            if self.new:
                alive.pop(self.place, None)

    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        function()
    return most


@dataclass
class Engine:
    """step: one iteration; model: whose weights it reads; stopwatch: of smi's forward and backward."""

    step: Callable[[], None]
    model: nn.Module
    stopwatch: Stopwatch | None = None


def build(request: Request, engine: str) -> Engine:
    """An engine on noise, `request.kept` random patches of each image still in."""
    torch.manual_seed(0)
    model = models.create(request.model).to(request.device)
    if "architecture" in request.model:  # trained ones know their pictures' statistics; any will do here
        channels = model.patch_embed.proj.in_channels
        models.set_data_config(model, [0.5] * channels, [0.25] * channels)
    if handles(model):
        size = (model.pretrained_cfg["input_size"][0], request.resolution, request.resolution)
        model.pretrained_cfg = {**model.pretrained_cfg, "input_size": size}
    recipe = smi.Recipe.from_json(request.recipe)
    adapted = ConvModel(model) if handles(model) else adapt(model)
    plan = Plan(recipe, None, any_score, request.precision, ())
    batch = Batch.start(adapted, plan, request.batch, None, (1, 2), torch.device(request.device))
    if request.kept is not None and not engine.endswith("_dense"):
        order = torch.rand(request.batch, adapted.num_patches).argsort(1)
        batch.hold(order[:, : request.kept].sort(1).values.to(request.device), adapted.grid)
        variable = batch.image.flatten(1).gather(1, batch.pixels).unflatten(1, (request.kept, -1))
        batch.optimizer = torch.optim.Adam([variable], recipe.learning_rate, recipe.betas, fused=True)
    if engine.startswith("reference"):
        return _published(model, recipe, batch)
    model.requires_grad_(False)
    stopwatch = Stopwatch(_half(adapted) if request.precision == "bf16" else adapted, request.device)
    plan = replace(plan, observer=stopwatch)
    mean, std = normalisation(model)
    low, high = (0 - mean) / std, (1 - mean) / std

    def step() -> None:
        batch.iteration %= recipe.iterations
        iterate(adapted, plan, batch, low, high)
        batch.iteration += 1

    return Engine(step, stopwatch.model.model, stopwatch)


def _half(adapted: Any) -> Any:
    copied = halved(adapted.model)
    return ConvModel(copied) if isinstance(adapted, ConvModel) else adapt(copied)


def _published(model: nn.Module, recipe: smi.Recipe, batch: Batch) -> Engine:
    plain = PublishedInversion(model, recipe, batch.image, batch.targets, batch.kept, batch.chance)
    height, width = batch.image.shape[2:]
    iterations = iter(range(2**31))

    def step() -> None:
        iteration = next(iterations) % recipe.iterations
        plain.step(recipe.draw_jitter(iteration, height, width, batch.jitter_generator), iteration)

    return Engine(step, plain.model)


class Stopwatch:
    """A model whose forward and backward are timed, once `on`; each reading empties the device's queue."""

    def __init__(self, model: Any, device: str) -> None:
        self.model, self.device, self.on = model, device, False
        self.parts: dict[str, list[float]] = {"forward": [], "backward": []}

    def observe(self, pixels: Tensor, cells: Tensor | None, needs: frozenset[str]) -> dict[str, Any]:
        if not self.on:
            return self.model.observe(pixels, cells, needs)
        began = self._now()
        seen = self.model.observe(pixels, cells, needs)
        ended = self._now()
        self.parts["forward"].append(ended - began)
        pixels.register_hook(lambda _: self.parts["backward"].append(self._now() - ended))
        return seen

    def _now(self) -> float:
        synchronise(self.device)
        return time.perf_counter()


def measure(request: Request) -> dict[str, Any]:
    """The figures of a request, JSON values."""
    if request.what == "memory":
        return _memory(request)
    built = {engine: build(request, engine) for engine in request.engines}
    seconds: dict[str, list[float]] = {engine: [] for engine in built}
    began = time.perf_counter()
    for repetition in range(-request.warmup, request.repetitions):
        for engine, made in built.items():
            taken = _timed(made.step, request.device)
            if repetition >= 0:
                seconds[engine].append(taken)
        if repetition + 1 >= MINIMUM and time.perf_counter() - began > SECONDS:
            break
    answer = {
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "stages": [],
    }
    answer["parts"] = _parts(built["smi"], request)
    del built
    for kept in request.stages:
        step = build(replace(request, kept=kept), "smi").step
        answer["stages"].append(
            statistics.median([_timed(step, request.device) for _ in range(MINIMUM + 1)][1:])
        )
    return answer


def _timed(step: Callable[[], None], device: str) -> float:
    synchronise(device)
    began = time.perf_counter()
    step()
    synchronise(device)
    return time.perf_counter() - began


def _parts(engine: Engine, request: Request) -> dict[str, float]:
    """Median seconds by part; "rest" is pixels (gather, scatter, total variation), Adam and clamp together."""
    engine.stopwatch.on = True
    whole = [_timed(engine.step, request.device) for _ in range(MINIMUM)]
    medians = {name: statistics.median(values) for name, values in engine.stopwatch.parts.items()}
    return medians | {"rest": statistics.median(whole) - sum(medians.values())}


def _memory(request: Request) -> dict[str, Any]:
    """GPU: torch's peak counter. CPU: bytes saved for backward, and how far the process grew in two iterations."""
    on_gpu = request.device.startswith("cuda")
    engine = build(request, request.engines[0])
    gc.collect()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(request.device)
    before = _peak_rss_mib(reset=True)
    for _ in range(2):
        engine.step()
    synchronise(request.device)
    if on_gpu:
        return {"gpu_mib": torch.cuda.max_memory_allocated(request.device) / MIB}
    grown = _peak_rss_mib() - before
    return {"rss_growth_mib": grown, "saved_mib": saved_bytes(engine.step, engine.model.parameters()) / MIB}


def _peak_rss_mib(reset: bool = False) -> float:
    """The most memory this process has held since the last reset; where that cannot be reset, since it began."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(arguments: Sequence[str]) -> int:
    """Read the request, write the answer."""
    request = Request(**json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    Path(arguments[1]).write_text(json.dumps(measure(request)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

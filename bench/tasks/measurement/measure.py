"""One measurement of what an inversion's iterations cost, in a process of its own (process.py starts it).

Engines of one request take turns, iteration by iteration, so that whatever else the machine does meets them alike.
Warm-up is apart, the device's queue is emptied around every figure, and every iteration's seconds are handed back.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import smi
from bench import models
from bench.tasks import engines
from bench.tasks.measurement.published_way import PublishedInversion
from smi.adapters import adapter_of
from smi.cnn import handles
from smi.device import float32_arithmetic, synchronise
from smi.execution import Pass, Passes
from smi.loop import Loop
from smi.state import InversionConfig, State

SECONDS = 10.0  # after which no further repetition is begun; at least MINIMUM are made
MINIMUM = 3
BLOCK = 0.05  # seconds on a GPU between two emptyings of its queue, at least: each costs tens of microseconds
RATE_SECONDS = 1.0  # of products, at least, for the machine's rate: a GPU's clocks need a while
MIB = 2**20


@dataclass(frozen=True)
class Request:
    """model: bench.models description; resolution: pixels a side; recipe: JSON; kept: patches of the measured stage,
    None when dense; stages: kept patches of the other stages, of which a few iterations are timed (of a
    dense one, smi_dense's are taken where it is among the engines).

    what: "time" (iterations of all `engines`, taking turns) or "memory" (of the first engine).
    engines: "smi", "reference", "smi_eager" (smi without its mode), "smi_dense" and "reference_dense" (all patches
    kept). precision and mode (of bench.tasks.engines.MODES) are smi's; the reference runs in IEEE's fp32, its
    convolutions included.
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
    mode: str = "eager"

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")


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
    """step: one iteration; model: whose weights it reads. Of smi's alone: its stopwatch and its optimizer."""

    step: Callable[[], None]
    model: nn.Module
    stopwatch: Stopwatch | None = None
    optimizer: torch.optim.Optimizer | None = None


def subject(request: Request) -> nn.Module:
    """The request's model, frozen, with random weights: made once, for drawing those of a large one takes seconds."""
    torch.manual_seed(0)
    model = models.create(request.model).to(request.device).requires_grad_(False)
    if "architecture" in request.model:  # trained ones know their pictures' statistics; any will do here
        channels = model.patch_embed.proj.in_channels
        models.set_data_config(model, [0.5] * channels, [0.25] * channels)
    if handles(model):
        size = (model.pretrained_cfg["input_size"][0], request.resolution, request.resolution)
        model.pretrained_cfg = {**model.pretrained_cfg, "input_size": size}
    return model


def build(request: Request, engine: str, model: nn.Module) -> Engine:
    """An engine of the model on noise, `request.kept` random patches of each image still in."""
    torch.manual_seed(0)
    recipe = smi.Recipe.from_json(request.recipe)
    adapted, config = adapter_of(model), InversionConfig(recipe)
    state = State.start(adapted, config, request.batch, None, (1, 2), torch.device(request.device))
    if request.kept is not None and not engine.endswith("_dense"):
        order = torch.rand(request.batch, adapted.num_patches).argsort(1)
        state.hold(order[:, : request.kept].sort(1).values.to(request.device), adapted.grid)
        variable = state.image.flatten(1).gather(1, state.pixels).unflatten(1, (request.kept, -1))
        state.optimizer = torch.optim.Adam([variable], recipe.learning_rate, recipe.betas, fused=True)
    if engine.startswith("reference"):
        return _published(model, recipe, state)
    mode = "eager" if engine == "smi_eager" else request.mode
    execution = engines.execution(mode, request.precision)
    execution.check(torch.device(request.device))
    stopwatch = Stopwatch(execution.passes(adapted, recipe.objective.needs), request.device)
    passes = replace(stopwatch.passes, observer=stopwatch, run=stopwatch.run)
    loop = Loop(adapted, config, passes)

    def step() -> None:
        state.iteration %= recipe.iterations
        with float32_arithmetic(request.device, request.precision):
            loop.iterate(state)
        state.iteration += 1

    return Engine(step, stopwatch.passes.observer.model, stopwatch, state.optimizer)


def _published(model: nn.Module, recipe: smi.Recipe, state: State) -> Engine:
    plain = PublishedInversion(model, recipe, state.image, state.targets, state.kept, state.chance)
    height, width = state.image.shape[2:]
    iterations = iter(range(2**31))

    def step() -> None:
        iteration = next(iterations) % recipe.iterations
        with float32_arithmetic(state.image.device):
            plain.step(recipe.draw_jitter(iteration, height, width, state.jitter_generator), iteration)

    return Engine(step, plain.model)


class Stopwatch:
    """Stands between an inversion and its model, and books seconds by part while `on`; emptying the device's queue."""

    def __init__(self, passes: Passes, device: str) -> None:
        self.passes, self.device = passes, device
        self.on, self.seconds = False, {}

    def observe(self, pixels: Tensor, cells: Tensor | None, needs: frozenset[str]) -> dict[str, Any]:
        """The forward pass; a replayed graph has none of its own."""
        return self._booked("forward", lambda: self.passes.observer.observe(pixels, cells, needs))

    def run(self, one: Pass, *arguments: Any) -> tuple[Tensor, Tensor]:
        """Forward, loss and backward."""
        return self._booked("model", lambda: self.passes.run(one, *arguments))

    def now(self) -> float:
        """The time at which the device has done what it was given."""
        synchronise(self.device)
        return time.perf_counter()

    def _booked(self, part: str, function: Callable[[], Any]) -> Any:
        if not self.on:
            return function()
        began = self.now()
        result = function()
        self.seconds[part] = self.now() - began
        return result


def measure(request: Request) -> dict[str, Any]:
    """The figures of a request, JSON values."""
    if request.what == "memory":
        return _memory(request)
    model = subject(request)
    built = {engine: build(request, engine, model) for engine in request.engines}
    seconds: dict[str, list[float]] = {engine: [] for engine in built}
    parts: list[dict[str, float]] = []  # of ours; on a GPU taken later, since that empties its queue
    blocks = dict.fromkeys(built, 1)
    for repetition in range(-request.warmup, request.repetitions):
        if repetition == 0:  # warm-up, which may compile or record, is apart
            if request.on_gpu:
                blocks = {engine: block(made.step, request.device) for engine, made in built.items()}
            began = time.perf_counter()
        for engine, made in built.items():
            apart = _taken_apart(made) if engine == "smi" and not request.on_gpu else None
            taken = sum(apart.values()) if apart else _timed(made.step, request.device, blocks[engine])
            if repetition >= 0:
                seconds[engine].append(taken)
                parts += [apart] if apart else []
        if repetition + 1 >= MINIMUM and time.perf_counter() - began > SECONDS:
            break
    if request.on_gpu:
        parts = [_taken_apart(built["smi"]) for _ in range(MINIMUM)]
    answer = {
        "seconds": seconds,
        "parts": {name: statistics.median(found[name] for found in parts) for name in parts[0]},
        "matmul_gmacs_per_second": matmul_rate(request.device, request.precision),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "stages": [],
    }
    del built
    for kept in request.stages:
        if kept is None and "smi_dense" in seconds:
            answer["stages"].append(statistics.median(seconds["smi_dense"]))
            continue
        step = build(replace(request, kept=kept), "smi", model).step
        answer["stages"].append(statistics.median(stage_seconds(step, request)))
    return answer


def _timed(step: Callable[[], Any], device: str, times: int = 1) -> float:
    """Seconds of one call, the mean of so many between two emptyings of the device's queue."""
    synchronise(device)
    began = time.perf_counter()
    for _ in range(times):
        step()
    synchronise(device)
    return (time.perf_counter() - began) / times


def block(step: Callable[[], Any], device: str) -> int:
    """How many calls take BLOCK seconds."""
    return max(1, math.ceil(BLOCK / _timed(step, device, 3)))


def stage_seconds(step: Callable[[], None], request: Request) -> list[float]:
    """Seconds of a few iterations, after one that warms up."""
    _timed(step, request.device)
    times = block(step, request.device) if request.on_gpu else 1
    return [_timed(step, request.device, times) for _ in range(MINIMUM)]


def _taken_apart(made: Engine) -> dict[str, float]:
    """Seconds of an iteration of ours by part: forward, backward (the loss included), pixels (jitter, gathering and
    scattering, total variation) and optimiser (Adam, clamp, writing the pixels back). A replayed CUDA graph cannot be
    taken apart: "model" stands for its forward and backward."""
    watch, moved_at = made.stopwatch, []
    handle = made.optimizer.register_step_pre_hook(lambda *_: moved_at.append(watch.now()))
    watch.on = True
    began = watch.now()
    made.step()
    ended = watch.now()
    watch.on = False
    handle.remove()
    parts = {"model": watch.seconds["model"], "optimiser": ended - moved_at[-1]}
    parts["pixels"] = ended - began - sum(parts.values())
    if "forward" in watch.seconds:
        parts["forward"] = watch.seconds["forward"]
        parts["backward"] = parts.pop("model") - parts["forward"]
    return parts


def matmul_rate(device: str, precision: str) -> float:
    """GMAC/s of torch's product of two large square matrices in the precision, the median over RATE_SECONDS: what the
    machine has to give."""
    size = 8192 if device.startswith("cuda") else 1024
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = torch.randn(2, size, size, device=device).to(kind)
    with float32_arithmetic(device, precision):
        _timed(lambda: one @ other, device)
        times = block(lambda: one @ other, device)
        seconds: list[float] = []
        while sum(seconds) * times < RATE_SECONDS:
            seconds.append(_timed(lambda: one @ other, device, times))
    return size**3 / statistics.median(seconds) / 1e9


def _memory(request: Request) -> dict[str, Any]:
    """GPU: torch's peak counters, of what tensors take and of what torch has reserved (CUDA graphs keep a pool of their
    own), over two iterations, the first of which takes the optimiser's memory. CPU: bytes saved
    for backward in one, and how far the process grew."""
    engine = build(request, request.engines[0], subject(request))
    gc.collect()
    if request.on_gpu:
        torch.cuda.reset_peak_memory_stats(request.device)
    before = _peak_rss_mib(reset=True)
    if request.on_gpu or request.mode != "eager":  # a first one compiles, records
        engine.step()
    if request.on_gpu:
        engine.step()
        synchronise(request.device)
        return {
            "gpu_mib": torch.cuda.max_memory_allocated(request.device) / MIB,
            "gpu_reserved_mib": torch.cuda.max_memory_reserved(request.device) / MIB,
        }
    saved = saved_bytes(engine.step, engine.model.parameters())
    return {"rss_growth_mib": _peak_rss_mib() - before, "saved_mib": saved / MIB}


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


def answer(request: Mapping[str, Any], place: Path) -> None:
    """What a measuring process does: measure, and write the figures to `place` as JSON. request: see `Request`."""
    asked = Request(**request)
    with torch.cuda.device(asked.device) if asked.on_gpu else contextlib.nullcontext():
        figures = measure(asked)
    place.write_text(json.dumps(figures), encoding="utf-8")

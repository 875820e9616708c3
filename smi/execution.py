"""How the model's part of an iteration is run: eager, compiled by torch, or replayed as a CUDA graph, in which
precision, in how many parts, and with weights laid out for speed (smi/weights.py).

`Execution` is what a user asks for; `Passes` is what comes of it for one model. Passes go through an observer, which
computes what losses read on a copy of the model; a runner runs one of them, forward and backward.

Shapes: B images, C channels, K kept patches of ph x pw pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from smi import kernels
from smi.adapters import Adapted, adapter_of
from smi.checks import is_whole
from smi.device import PRECISIONS, Precision, autocast, check_precision
from smi.errors import InvalidSetting
from smi.shortcuts import refuse_copy
from smi.weights import halved, prepacked, shared

# (pixels, cells or None, targets, share of the batch, the run's chance) -> (loss, its gradient to the pixels)
Pass = Callable[[Tensor, Tensor | None, Tensor, float, float], tuple[Tensor, Tensor]]
Runner = Callable[[Pass, Tensor, Tensor | None, Tensor, float, float], tuple[Tensor, Tensor]]
WARM_UP = (
    3  # passes before a CUDA graph is recorded: libraries choose their kernels and take their memory in these
)


class Observer(Protocol):
    """What losses are computed with. model: the copy, or the model itself."""

    model: nn.Module

    def observe(self, view: Tensor, kept: Tensor | None, needs: frozenset[str]) -> dict[str, Any]:
        """As `smi.adapters.Adapted.observe`."""
        ...


@dataclass(frozen=True)
class Execution:
    """How an inversion runs the model. What it changes in the images is rounding, and with "bf16" precision.

    micro_batch: images that go through the model together (None: the whole batch). This bounds memory, and takes no
        objective that couples images through the model (patch similarity's shared grid, BatchNorm's statistics, the
        adaptive term).
    compile: through torch.compile, anew in each stage; needs a C++ compiler (CPU) or Triton (GPU).
    cuda_graphs: record the model's launches once in each stage and replay them; CUDA only. With compile, those of the
        compiled model.
    precision: "fp32" is IEEE's everywhere; "tf32", on CUDA devices, rounds the factors of float32 products to 10 bits
        of mantissa; "bf16" runs the model under autocast. Pixels, losses and Adam stay float32 in each.

    Raises InvalidSetting for what does not go together.
    """

    micro_batch: int | None = None
    compile: bool = False
    cuda_graphs: bool = False
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if self.micro_batch is not None and (not is_whole(self.micro_batch) or self.micro_batch < 1):
            raise InvalidSetting(
                f"micro_batch is {self.micro_batch!r}; allowed: None, or a whole number >= 1"
            )
        for name in ("compile", "cuda_graphs"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidSetting(f"{name} is {getattr(self, name)!r}; allowed: True, False")
        if self.precision not in PRECISIONS:
            raise InvalidSetting(f"precision is {self.precision!r}; allowed: {', '.join(PRECISIONS)}")

    def check(self, device: torch.device) -> None:
        """Raise InvalidSetting for what does not go on this device; builds its kernels, where it has some."""
        if self.cuda_graphs and device.type != "cuda":
            raise InvalidSetting(f"cuda_graphs needs a CUDA device; this is {device.type}")
        check_precision(device, self.precision)
        if device.type == "cuda":
            kernels.work_on(device)  # now: building them takes seconds that are no stage's

    def passes(self, adapted: Adapted, needs: frozenset[str]) -> Passes:
        """Ready to run; needs: of the objective. A copy of the model is made only where something is gained by it."""
        runner = Replayed() if self.cuda_graphs else eager
        return Passes(self._observer(adapted, needs), self.precision, self.micro_batch, runner)

    def _observer(self, adapted: Adapted, needs: frozenset[str]) -> Observer:
        if self.precision == "bf16":
            model = halved(adapted.model)
        else:
            if self.compile:
                refuse_copy(adapted.model, "compile=True")
            model = shared(adapted.model) if self.compile else prepacked(adapted.model)
        if model is adapted.model:
            return adapted
        return Compiled(adapter_of(model), needs) if self.compile else adapter_of(model)


def eager(
    run: Pass, pixels: Tensor, cells: Tensor | None, targets: Tensor, share: float, chance: float
) -> tuple[Tensor, Tensor]:
    """The plain runner: call it."""
    return run(pixels, cells, targets, share, chance)


@dataclass(frozen=True)
class Passes:
    """How the passes of one model are run: through which observer, in which precision, in how many parts, by what."""

    observer: Observer
    precision: Precision = "fp32"
    micro_batch: int | None = None
    run: Runner = eager

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context of a forward pass there."""
        return autocast(device, self.precision)


class Compiled:
    """An observer: an adapted model through torch.compile, one compilation for each shape of its inputs.

    The model must be nobody else's: hooks that an objective needs stay in it.
    """

    def __init__(self, adapted: Adapted, needs: frozenset[str]) -> None:
        self.model: nn.Module = adapted.model
        self._adapted, self._needs = adapted, needs
        self._hooks = adapted.hooked(needs)  # held: a hook put in anew in each pass could not be compiled
        self._captured = self._hooks.__enter__()
        self._compiled: dict[tuple[Any, ...], Callable[..., dict[str, Any]]] = {}

    def observe(self, view: Tensor, kept: Tensor | None, needs: frozenset[str]) -> dict[str, Any]:
        """As `smi.adapters.Adapted.observe`. Raises InvalidSetting where torch.compile cannot work."""
        shape = (view.shape, None if kept is None else kept.shape)
        if shape in self._compiled:
            return self._compiled[shape](view, kept)
        try:
            compiled = self._compiled[shape] = self._compile()
            return compiled(view, kept)
        except RuntimeError as cause:
            refusal = _refusal(cause)
            if refusal is cause:  # raised from itself, its chain would never end
                raise
            raise refusal from cause

    def _compile(self) -> Callable[..., dict[str, Any]]:
        adapted, captured, needs = self._adapted, self._captured, self._needs

        def observe(view: Tensor, kept: Tensor | None) -> dict[str, Any]:
            captured.clear()
            logits = adapted.forward(view, kept)
            return adapted.fields(logits, list(captured), needs)

        # torch counts compilations by code object, and gives up after a few: each shape has its own
        observe.__code__ = observe.__code__.replace()
        return torch.compile(observe, dynamic=False, fullgraph=True)


def _refusal(cause: RuntimeError) -> Exception:
    """InvalidSetting for what the compiler raised, in one line; any other error as it is."""
    own = type(cause).__module__.startswith(("torch._dynamo", "torch._inductor"))
    if not own and "Dynamo is not supported" not in str(cause):
        return cause
    inner = getattr(cause, "inner_exception", cause)
    reason = next((line.strip() for line in str(inner).splitlines() if line.strip()), type(inner).__name__)
    return InvalidSetting(f"compile=True does not work here: {reason}")


class Recorded:
    """A function of tensors, recorded once on copies of its inputs; called with others, these are copied to the same
    places and what was recorded is replayed.

    inputs: of the shapes of all calls; None for one that is absent. record: takes a function of no arguments, runs it,
    and returns what runs it again on the same tensors (by default a CUDA graph). What a call returns is valid until the
    next one.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Tensor | None],
        record: Callable[[Callable[[], Any]], Callable[[], Any]] | None = None,
    ) -> None:
        self._held = [None if tensor is None else tensor.detach().clone() for tensor in inputs]
        self._replay = (record or record_cuda_graph)(partial(function, *self._held))

    def __call__(self, *inputs: Tensor | None) -> Any:
        with torch.no_grad():
            for place, tensor in zip(self._held, inputs, strict=True):
                if place is not None and tensor is not None:
                    place.copy_(tensor)
        return self._replay()


class Replayed:
    """A runner that records a pass once for each shape and replays it on inputs copied into the same place.

    record: as of Recorded. A returned gradient is valid until the next pass; recordings of another number of kept
    patches, or of another batch's chance, go when a stop or the next batch has changed it.
    """

    def __init__(self, record: Callable[[Callable[[], Any]], Callable[[], Any]] | None = None) -> None:
        self._record = record
        self._of: tuple[int | None, float] = (None, 0.0)
        self._recorded: dict[tuple[Any, ...], Recorded] = {}

    def __call__(
        self, run: Pass, pixels: Tensor, cells: Tensor | None, targets: Tensor, share: float, chance: float
    ) -> tuple[Tensor, Tensor]:
        of = (None if cells is None else cells.shape[1], chance)
        if of != self._of:
            self._of = of
            self._recorded.clear()
        key = (tuple(pixels.shape), share)
        if key not in self._recorded:

            def one(pixels: Tensor, cells: Tensor | None, targets: Tensor) -> tuple[Tensor, Tensor]:
                return run(pixels, cells, targets, share, chance)

            self._recorded[key] = Recorded(one, (pixels, cells, targets), self._record)
        loss, gradient = self._recorded[key](pixels, cells, targets)
        return loss.clone(), gradient


@cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """Where a device's graphs are recorded: one stream, since libraries hold a workspace for each; not torch's own,
    which belongs to whichever device came first."""
    return torch.cuda.Stream(device)


def record_cuda_graph(function: Callable[[], Any]) -> Callable[[], Any]:
    """Record what a function launches on the current CUDA device, as torch's notes on CUDA graphs do it.

    The function must read and write the same tensors each time and never wait for the device.
    """
    side = _side_stream(torch.cuda.current_device())
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        results = function()

    def replay() -> Any:
        graph.replay()
        return results

    return replay

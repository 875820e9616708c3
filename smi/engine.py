"""How the model part of an iteration is executed: as it is, compiled by torch, or replayed as a CUDA graph.

An observer is what losses are computed with: the face of `smi.vit.TokenModel` on a copy of the model that is laid
out for speed (smi/weights.py), compiled if asked. An executor runs one pass through it, forward and backward.

Shapes: B images, C channels, K kept patches of ph x pw pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from smi.cnn import ConvModel, handles
from smi.errors import InvalidSetting
from smi.vit import TokenModel, adapt
from smi.weights import halved, packed, shared

# (pixels, cells or None, targets, share of the batch) -> (loss, its gradient to the pixels)
Pass = Callable[[Tensor, Tensor | None, Tensor, float], tuple[Tensor, Tensor]]
WARM_UP = (
    3  # passes before a CUDA graph is recorded: libraries choose their kernels and take their memory in these
)


def adapt_any(model: nn.Module) -> TokenModel | ConvModel:
    """The adapter that fits: of a CNN with BatchNorm, or of a timm VisionTransformer; raises UnsupportedModel."""
    return ConvModel(model) if handles(model) else adapt(model)


def check(compile: bool, cuda_graphs: bool, device: torch.device) -> None:
    """Raise InvalidSetting for what does not go together, or not on this device."""
    for name, value in {"compile": compile, "cuda_graphs": cuda_graphs}.items():
        if not isinstance(value, bool):
            raise InvalidSetting(f"{name} is {value!r}; allowed: True, False")
    if cuda_graphs and device.type != "cuda":
        raise InvalidSetting(f"cuda_graphs needs a CUDA device; this is {device.type}")
    if cuda_graphs and compile:
        raise InvalidSetting("compile and cuda_graphs are both on; allowed: one of them")


def observer(adapted: TokenModel | ConvModel, precision: str, needs: frozenset[str], compile: bool) -> Any:
    """What the losses of an inversion are computed with; the adapted model itself where nothing is gained by a copy.

    precision: "fp32" or "bf16". needs: of the objective. compile: through torch.compile.
    """
    if precision == "bf16":
        model = halved(adapted.model)
    else:
        model = shared(adapted.model) if compile else packed(adapted.model)
    if model is adapted.model:
        return adapted
    return Compiled(adapt_any(model), needs) if compile else adapt_any(model)


class Compiled:
    """`observe` of an adapted model through torch.compile, one compilation for each shape of its inputs.

    The model must be nobody else's: hooks that an objective needs stay in it.
    """

    def __init__(self, adapted: TokenModel | ConvModel, needs: frozenset[str]) -> None:
        self.model = adapted.model
        self._adapted, self._needs = adapted, needs
        self._watch = adapted.watch(needs)  # held: a hook put in anew in each pass could not be compiled
        self._captured = self._watch.__enter__()
        self._compiled: dict[tuple[Any, ...], Callable[..., dict[str, Any]]] = {}

    def observe(self, view: Tensor, kept: Tensor | None, needs: frozenset[str]) -> dict[str, Any]:
        """As `smi.vit.TokenModel.observe`. Raises InvalidSetting where torch.compile cannot work."""
        shape = (view.shape, None if kept is None else kept.shape)
        if shape in self._compiled:
            return self._compiled[shape](view, kept)
        try:
            compiled = self._compiled[shape] = self._compile()
            return compiled(view, kept)
        except RuntimeError as cause:
            raise _refusal(cause) from cause

    def _compile(self) -> Callable[..., dict[str, Any]]:
        adapted, captured, needs = self._adapted, self._captured, self._needs

        def observe(view: Tensor, kept: Tensor | None) -> dict[str, Any]:
            captured.clear()
            logits = adapted.forward(view, kept)
            return adapted.described(logits, list(captured), needs)

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


def direct(run: Pass, pixels: Tensor, cells: Tensor | None, targets: Tensor, share: float) -> Any:
    """The plain executor: call it."""
    return run(pixels, cells, targets, share)


class Replayed:
    """An executor that records a pass once for each shape and replays it on inputs copied into the same place.

    record: takes a function of no arguments, runs it, and returns what runs it again on the same tensors (by default a
    CUDA graph). A returned gradient is valid until the next pass; recordings of another number of kept patches go
    when a stop has changed it.
    """

    def __init__(self, record: Callable[[Callable[[], Any]], Callable[[], Any]] | None = None) -> None:
        self._record = record or record_cuda_graph
        self._kept: int | None = None
        self._recorded: dict[tuple[Any, ...], tuple[list[Tensor | None], Callable[[], Any]]] = {}

    def __call__(
        self, run: Pass, pixels: Tensor, cells: Tensor | None, targets: Tensor, share: float
    ) -> tuple[Tensor, Tensor]:
        kept = None if cells is None else cells.shape[1]
        if kept != self._kept:
            self._kept = kept
            self._recorded.clear()
        inputs = [pixels, cells, targets]
        key = (tuple(pixels.shape), share)
        if key not in self._recorded:
            held = [None if tensor is None else tensor.detach().clone() for tensor in inputs]
            self._recorded[key] = held, self._record(lambda: run(*held, share))
        held, replay = self._recorded[key]
        with torch.no_grad():
            for place, tensor in zip(held, inputs, strict=True):
                if place is not None:
                    place.copy_(tensor)
        loss, gradient = replay()
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

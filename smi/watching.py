"""What passes through layers of a model, seen by hooks that leave with the context. Used by adapters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def watched(layers: list[nn.Module], pick: Callable[[nn.Module, Tensor, Tensor], Any]) -> Iterator[list[Any]]:
    """While open, this thread's forward passes of the layers append pick(layer, its input, its output)."""
    found: list[Any] = []
    thread = threading.get_ident()  # another thread may run the same model

    def watch(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # what is compiled is a copy, which nobody else runs
        if torch.compiler.is_compiling() or threading.get_ident() == thread:
            found.append(pick(layer, inputs[0], output))

    hooks = [layer.register_forward_hook(watch) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()

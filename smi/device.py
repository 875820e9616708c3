"""Which device is meant, when it has done its work, and in which precision it works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


def resolved(device: str | torch.device) -> torch.device:
    """The device with its index: "cuda" is the current one, which no tensor calls so."""
    return torch.empty(0, device=device).device


def synchronise(device: str | torch.device) -> None:
    """Wait until the device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def outside_autocast() -> Iterator[None]:
    """While open, no autocast and no inference mode of the caller's reaches what runs; a decorator too. `precision`
    alone says what does, and tensors that need gradients come of it."""
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield

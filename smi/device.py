"""Which device is meant, when it has done its work, and in which arithmetic it works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal, get_args

import torch

from smi.errors import InvalidSetting

Precision = Literal["fp32", "tf32", "bf16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


def resolved(device: str | torch.device) -> torch.device:
    """The device with its index: "cuda" is the current one, which no tensor calls so."""
    return torch.empty(0, device=device).device


def synchronise(device: str | torch.device) -> None:
    """Wait until the device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def outside_callers_modes() -> Iterator[None]:
    """While open, no autocast and no inference mode of the caller's reaches what runs; a decorator too. `precision`
    alone says what does, and tensors that need gradients come of it."""
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of a forward pass there; without effect but for "bf16".

    Nothing that was cast is kept for later: inside a caller's autocast torch would keep it beyond this one's end, and
    a CUDA graph, recorded after a first pass, would hold that pass's pixels for ever.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


def check_precision(device: str | torch.device, precision: str) -> None:
    """Raise InvalidSetting for a precision that a device does not have."""
    kind = torch.device(device).type
    if precision == "tf32" and kind != "cuda":
        raise InvalidSetting(f"precision 'tf32' needs a CUDA device; this is {kind}")


@contextmanager
def float32_arithmetic(device: str | torch.device, precision: str = "fp32") -> Iterator[None]:
    """While open, float32 products on a CUDA device are IEEE's; TF32's (10 bits of mantissa) with "tf32".

    Convolutions and matrix products alike: torch's own default is TF32 for the ones and IEEE for the others. The
    caller's settings come back at the end; they are the process's, so threads that run beside this share them.
    InvalidSetting for "tf32" elsewhere.
    """
    check_precision(device, precision)
    if torch.device(device).type != "cuda":
        yield
        return
    before, wanted = _tf32(), "tf32" if precision == "tf32" else "ieee"
    _set_tf32(wanted, wanted)
    try:
        yield
    finally:
        _set_tf32(*before)


def _tf32() -> tuple[str, str]:
    """How matrix products and convolutions are computed now, in torch's words ("none" is torch's default)."""
    if hasattr(torch.backends.cudnn, "conv"):  # torch 2.9 and later
        return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision
    words = {True: "tf32", False: "ieee"}
    return words[torch.backends.cuda.matmul.allow_tf32], words[torch.backends.cudnn.allow_tf32]


def _set_tf32(products: str, convolutions: str) -> None:
    """By the older flags, which torch's compiler reads, and then by the newer, which say more."""
    torch.backends.cuda.matmul.allow_tf32 = products == "tf32"
    torch.backends.cudnn.allow_tf32 = convolutions == "tf32"
    if hasattr(torch.backends.cudnn, "conv"):
        torch.backends.cuda.matmul.fp32_precision = products
        torch.backends.cudnn.conv.fp32_precision = convolutions

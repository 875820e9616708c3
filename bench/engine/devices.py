"""Which GPUs this machine has, found without importing torch where there are none."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench.errors import BenchError

DEVICES = Path("/dev")
KINDS = ("cpu", "cuda", "mps", "xpu")  # torch knows more, which compute nothing ("meta") or no vision models


def gpu_count() -> int:
    """GPUs that torch can use here; before torch is imported, which takes seconds that a look at a sweep need not wait,
    those that the machine shows."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1", "NoDevFiles"):
        return 0
    shown = _shown()
    if not shown or "torch" not in sys.modules:
        return shown if visible is None else min(shown, len(visible.split(",")))
    import torch

    return torch.cuda.device_count()


def _shown() -> int:
    """GPUs that have a device file: NVIDIA's, AMD's, or the one that Windows lends its Linux."""
    if (DEVICES / "nvidiactl").exists():
        return sum(path.name.removeprefix("nvidia").isdecimal() for path in DEVICES.glob("nvidia*"))
    if (DEVICES / "kfd").exists():
        return sum(1 for _ in DEVICES.glob("dri/renderD*"))
    return int((DEVICES / "dxg").exists())


def check_kind(asked: str) -> None:
    """That a device of this name can run tasks somewhere, if not here. Raises BenchError."""
    import torch

    try:
        kind = torch.device(asked).type
    except RuntimeError:
        kind = ""
    if kind not in KINDS:
        raise BenchError(
            f"--device {asked!r}: there is no such device; allowed: {', '.join(KINDS)}, cuda:0, ..."
        )


def resolve(asked: str | None) -> str:
    """The device to run on: what was asked for if it exists, else the first GPU, else the CPU."""
    if asked is None:
        return "cuda" if gpu_count() else "cpu"
    if asked == "cpu":
        return asked
    import torch

    try:
        check_kind(asked)
        torch.empty(0, device=torch.device(asked))
    except (RuntimeError, AssertionError, NotImplementedError):
        found = ["cpu", *(f"cuda:{index}" for index in range(gpu_count()))]
        raise BenchError(
            f"--device {asked!r}: there is no such device here; there are: {', '.join(found)}"
        ) from None
    return asked

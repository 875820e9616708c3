"""Which GPUs this machine has, found without importing torch where there are none."""

from __future__ import annotations

import os
from pathlib import Path

from bench.errors import BenchError

KINDS = ("cpu", "cuda", "mps", "xpu")  # torch knows more, which compute nothing ("meta") or no vision models


def gpu_count() -> int:
    """GPUs that torch can use here."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1", "NoDevFiles"):
        return 0
    if (
        not Path("/dev/nvidiactl").exists()
        and not Path("/dev/kfd").exists()
        and not Path("/dev/dxg").exists()
    ):
        return 0
    import torch

    return torch.cuda.device_count()


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

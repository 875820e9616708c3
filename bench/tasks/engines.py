"""How an inversion's passes are run on a device: not part of what is computed, beyond rounding, so of no task's key."""

from __future__ import annotations

from typing import Literal, get_args

import torch

import smi

Engine = Literal["auto", "eager", "compile", "cuda_graphs", "compile+cuda_graphs"]
AUTO, *MODES = get_args(Engine)  # MODES: ways to run; AUTO is none, but picks one


def chosen(engine: str, device: str) -> str:
    """The mode that `engine` (AUTO or one of MODES) means on a device.

    AUTO replays CUDA graphs on a GPU, where launches bound all but the largest batches, and is eager elsewhere: a
    compiler that is there on one machine may be missing on the next, and costs minutes before it gains any. What asks
    for CUDA graphs runs without them where there are none.
    """
    on_gpu = torch.device(device).type == "cuda"
    if engine == AUTO:
        return "cuda_graphs" if on_gpu else "eager"
    parts = [part for part in engine.split("+") if on_gpu or part != "cuda_graphs"]
    return "+".join(parts) or "eager"


def execution(mode: str, precision: str) -> smi.Execution:
    """Of one of MODES."""
    modes = {name: name in mode.split("+") for name in ("compile", "cuda_graphs")}
    return smi.Execution(precision=precision, **modes)

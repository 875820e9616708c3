"""Reading checkpoint files: without unpickling code, out of whatever a training wrapped around the weights."""

from __future__ import annotations

import argparse
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.errors import BenchError
from bench.text import one_line

NESTED = (
    "model",
    "state_dict",
    "model_state_dict",
    "module",
)  # keys under which published checkpoints hold weights
PREFIXES = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile, Lightning
COUNTER = "n_averaged"  # beside the weights of torch's AveragedModel
TERMINAL = re.compile(r"\x1b\[[0-9;]*m")
FOREIGN = re.compile(r"GLOBAL (\S+)")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file: nested in {"model": ...} and the like or not, without the prefixes that wrappers put
    before every name (a note on stderr says so). Raises BenchError, one line, for what is no checkpoint."""
    state = _read(path)
    while isinstance(state, dict) and (key := next((k for k in NESTED if _holds_dict(state, k)), None)):
        state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise BenchError(f"{path} holds no state dict (name -> tensor)")
    return _without_prefixes(path, state)


@cache
def note(line: str) -> None:
    """Say it on stderr, once a process."""
    print(f"note: {line}", file=sys.stderr)


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # What a training's arguments are kept in: a bag of values, each of which is held to the same rule.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises almost anything
        said = TERMINAL.sub("", str(error))
        foreign = FOREIGN.search(said)
        if foreign is not None:
            raise BenchError(
                f"{path} is no readable checkpoint: beside tensors it holds {foreign[1]}, and to read that could run "
                "code; save the weights alone, torch.save(model.state_dict(), FILE), or as .safetensors"
            ) from None
        reason = one_line(said.strip().partition("\n")[0], 160) or type(error).__name__
        raise BenchError(
            f"{path} is no readable checkpoint (damaged, or not tensors alone): {reason}"
        ) from None


def _holds_dict(state: dict[str, Any], key: str) -> bool:
    return isinstance(state.get(key), dict)


def _without_prefixes(path: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    taken = ""
    while True:
        names = [name for name in state if name != COUNTER]
        prefix = next((p for p in PREFIXES if names and all(name.startswith(p) for name in names)), None)
        if prefix is None:
            break
        taken += prefix
        state = {name.removeprefix(prefix): state[name] for name in names}
    if taken:
        note(f"{path}: every name begins with {taken!r}, which a wrapper put there; it is taken off")
    return state

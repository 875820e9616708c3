"""Resumable state of long work: one safetensors file, written every so many seconds and when told to stop."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from smi.checks import is_number
from smi.errors import CheckpointError, InvalidSetting
from smi.files import load_tensors, save_tensors
from smi.identity import same_answers, structure

ANSWERS = "answers"  # the part of an identity that is compared up to rounding
FORMAT = 2  # of the file; one of another format belongs to another version of smi
Parts = Mapping[str, Mapping[str, Any]]  # of a state: named tensors and JSON values, e.g. of each batch


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of a run is kept, and how many seconds lie between two saves.

    An existing file of the same run is continued to the same bits; it stays when the run is done.
    """

    path: str | Path
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if not isinstance(self.path, (str, Path)):
            raise InvalidSetting(f"checkpoint is {self.path!r}; allowed: None, a path, or a smi.Checkpoint")
        if not is_number(self.seconds) or self.seconds < 0:
            raise InvalidSetting(f"checkpoint: seconds is {self.seconds!r}; allowed: a number >= 0")


class Saver:
    """Writes and reads the file of one run, told from others by `identity` (JSON values: settings, seeds,
    fingerprints of weights). Without a checkpoint nothing is saved and nothing is found."""

    def __init__(self, checkpoint: str | Path | Checkpoint | None, identity: Mapping[str, Any]) -> None:
        if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
            checkpoint = Checkpoint(checkpoint)
        self.path = None if checkpoint is None else Path(checkpoint.path)
        self.seconds = 0.0 if checkpoint is None else checkpoint.seconds
        self.identity = {"format": FORMAT, **identity}
        self._last = time.monotonic()
        if self.path is not None and not self.path.parent.is_dir():
            raise CheckpointError(f"{self.path}: the folder {self.path.parent} is not there")

    def load(self) -> dict[str, dict[str, Any]]:
        """The parts saved before, none where there is no file; CheckpointError for a damaged file or one of another
        run."""
        if self.path is None or not self.path.exists():
            return {}
        tensors, description = load_tensors(self.path, CheckpointError)
        saved = description.get("identity", {})
        for name, value in self.identity.items():
            there = saved.get(name)
            if not (same_answers(there, value) if name == ANSWERS else there == value):
                raise CheckpointError(
                    f"{self.path}: belongs to another run ({name} is {_short(there)} there, {_short(value)} here); "
                    "delete it or give another path"
                )
        parts: dict[str, dict[str, Any]] = description["parts"]
        for key, tensor in tensors.items():
            part, _, name = key.partition(".")
            parts[part][name] = tensor
        return parts

    def due(self) -> bool:
        """Has the time between two saves passed?"""
        return self.path is not None and time.monotonic() - self._last >= self.seconds

    def save(self, parts: Parts) -> bool:
        """Write the state, whole or not at all; False where there is no path to write it to."""
        if self.path is not None:
            tensors: dict[str, Tensor] = {}
            values: dict[str, dict[str, Any]] = {}
            for part, found in parts.items():
                tensors |= {f"{part}.{name}": v for name, v in found.items() if isinstance(v, Tensor)}
                values[part] = {name: v for name, v in found.items() if not isinstance(v, Tensor)}
            save_tensors(self.path, tensors, {"identity": self.identity, "parts": values})
        self._last = time.monotonic()
        return self.path is not None


def _short(value: Any) -> str:
    """A value in a message of one line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def fingerprint(model: nn.Module) -> str:
    """sha256 of all parameters and buffers, names included, of how modules use them (smi/identity.py), and of the
    normalisation: equal for equal models, on any device."""
    config = resolve_model_data_config(model)
    digest = hashlib.sha256(str([*structure(model), config["mean"], config["std"]]).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

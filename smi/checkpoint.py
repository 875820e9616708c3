"""Resumable state of long work: one safetensors file, written every so many seconds and when told to stop."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from smi.errors import CheckpointError
from smi.files import load_tensors, save_tensors


class Checkpoint:
    """The file at `path`, tied to one run by `identity` (JSON values: settings, seeds, fingerprints of weights).

    Without a path nothing is saved and nothing is found.
    """

    def __init__(self, path: str | Path | None, identity: Mapping[str, Any], seconds: float = 60.0) -> None:
        self.path = None if path is None else Path(path)
        self.identity = dict(identity)
        self.seconds = seconds
        self._last = time.monotonic()
        if self.path is not None and not self.path.parent.is_dir():
            raise CheckpointError(f"{self.path}: the folder {self.path.parent} is not there")

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """(tensors, figures) saved before, or None; CheckpointError for a damaged file or one of another run."""
        if self.path is None or not self.path.exists():
            return None
        tensors, description = load_tensors(self.path, CheckpointError)
        saved = description.get("identity", {})
        for name, value in self.identity.items():
            if saved.get(name) != value:
                raise CheckpointError(
                    f"{self.path}: belongs to another run ({name} is {saved.get(name)!r} there, {value!r} here); "
                    "delete it or give another path"
                )
        return tensors, description["figures"]

    def due(self) -> bool:
        """Has the time between two saves passed?"""
        return self.path is not None and time.monotonic() - self._last >= self.seconds

    def save(self, tensors: Mapping[str, Tensor], figures: Mapping[str, Any]) -> bool:
        """Write the state, whole or not at all; False where there is no path to write it to."""
        if self.path is not None:
            save_tensors(self.path, tensors, {"identity": self.identity, "figures": dict(figures)})
        self._last = time.monotonic()
        return self.path is not None


def fingerprint(model: nn.Module) -> str:
    """sha256 of all parameters and buffers, names included, and of what else makes a model answer as it does: equal
    for equal models, on any device."""
    config = resolve_model_data_config(model)
    facts = [type(model).__name__, getattr(model, "global_pool", None), config["mean"], config["std"]]
    facts += [module.num_heads for module in model.modules() if hasattr(module, "num_heads")]
    digest = hashlib.sha256(str(facts).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

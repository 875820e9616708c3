"""Tensors on disk: safetensors with a JSON description, whole or not at all, never pickle."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from smi.errors import SmiError


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write tensors and a JSON description to `path`; the file appears whole or not at all."""
    path = Path(path)
    on_host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    payload = save(on_host, metadata={"description": json.dumps(description, sort_keys=True)})
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    # not tempfile's: those are their owner's alone, and files are shared as the umask says
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def load_tensors(path: str | Path, error: type[SmiError]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what save_tensors wrote; raises `error` with one line where the file is missing or damaged."""
    try:
        with torch.device("cpu"), safe_open(str(path), framework="pt") as file:
            # cloned: in the file's own buffer they lie at odd addresses, and some sums round by where a tensor lies
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
            description = json.loads((file.metadata() or {})["description"])
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (SafetensorError, OSError, KeyError, ValueError) as cause:
        raise error(f"{path}: not a file of smi or damaged ({type(cause).__name__}: {cause})") from cause
    return tensors, description

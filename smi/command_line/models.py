"""The model that a command names: a timm name with weights from a file or the hub, or a folder of transformers'."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from smi.errors import InvalidFile, InvalidSetting, UnsupportedModel
from smi.foreign.convert import to_timm


def load(options: argparse.Namespace) -> nn.Module:
    """The model in evaluation mode; SmiError in one line where it or its weights are not there or do not fit."""
    if options.threads < 0:
        raise InvalidSetting(f"--threads is {options.threads}; allowed: whole numbers from 0")
    if options.threads:
        torch.set_num_threads(options.threads)
    if Path(options.model).is_dir():
        return to_timm(options.model).eval()
    if options.checkpoint and options.random_weights:
        raise InvalidSetting("--checkpoint and --random-weights contradict each other: give one")
    if not timm.is_model(options.model):
        alike = timm.list_models(f"*{options.model}*")[:3] or timm.list_models("deit_*_patch16_224")
        raise UnsupportedModel(
            f"{options.model} is neither a folder nor a model of timm; e.g. {', '.join(alike)}"
        )
    if options.checkpoint:
        return _with_weights(options.model, Path(options.checkpoint)).eval()
    torch.manual_seed(options.seed)  # random weights are the same each time
    try:
        return timm.create_model(options.model, pretrained=not options.random_weights).eval()
    except Exception as cause:  # of the hub, the network, the cache: no common class
        words = " ".join(str(cause).split())[:160]
        raise InvalidFile(
            f"the weights of {options.model} are not in timm's cache and could not be fetched ({words}): give "
            "--checkpoint FILE, or --random-weights to try speed and size"
        ) from cause


def _with_weights(name: str, path: Path) -> nn.Module:
    state = _read(path)
    classes: dict[str, Any] = {"num_classes": len(state["head.weight"])} if "head.weight" in state else {}
    model = timm.create_model(name, **classes)
    try:
        model.load_state_dict(state)
    except RuntimeError as cause:
        raise InvalidFile(f"{path}: does not fit {name} ({' '.join(str(cause).split())[:300]})") from cause
    return model


def _read(path: Path) -> dict[str, Tensor]:
    """A state_dict from a file, read without unpickling objects."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InvalidFile(f"{path}: no such file") from None
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as cause:
        raise InvalidFile(f"{path}: holds no weights ({' '.join(str(cause).split())[:160]})") from cause
    except Exception as cause:  # torch's refusal to unpickle is a pickle.UnpicklingError
        raise InvalidFile(
            f"{path}: holds more than tensors, which is not read: save its state_dict"
        ) from cause
    for key in ("state_dict", "model"):
        found = found.get(key, found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(one, Tensor) for one in found.values()):
        raise InvalidFile(f"{path}: holds no state_dict")
    return found

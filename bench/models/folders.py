"""A folder as transformers' `save_pretrained` writes it, `DIR/<model>/` of `--checkpoints DIR`, as a model of grids.

It becomes a timm ViT with the same logits (smi.to_timm). What identifies it in a task's settings is its shape
("blueprint") and the sha256 of its files, wherever the folder lies; transformers need not be installed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.engine.atomic import sha256_of
from bench.engine.task import Sources
from bench.errors import BenchError, MissingData
from bench.models.checkpoints import note
from bench.models.weights import held_to
from smi.errors import SmiError
from smi.foreign import folder as saved
from smi.foreign.blueprint import Blueprint


def find(name: str, sources: Sources) -> Path | None:
    """The folder of that name among the checkpoints, if it is one that `save_pretrained` wrote."""
    if sources.checkpoints is None or Path(name).name != name:
        return None
    folder = Path(sources.checkpoints) / name
    return folder if saved.is_one(folder) else None


def describe(name: str, folder: Path, weights: bool) -> dict[str, Any]:
    """{"name", "blueprint"} and, if asked for, "weights": {"folder", "sha256"}. BenchError, one line, for a damaged
    folder, and for a model that is not handled."""
    blueprint, tensors = _read(folder)
    outline = _outline(blueprint, folder)
    described: dict[str, Any] = {"name": name, "blueprint": replace(blueprint, labels=()).to_json()}
    if weights:
        held_to(outline, tensors, folder)  # refused before any work depends on it
        described["weights"] = {"folder": name, "sha256": _digest(folder)}
    return described


def build(described: Mapping[str, Any]) -> nn.Module:
    """The described model with random weights; "classes": of a fresh head in place of its own."""
    blueprint = Blueprint.from_json(described["blueprint"])
    return replace(blueprint, classes=described.get("classes", blueprint.classes)).build()


def load(model: nn.Module, weights: Mapping[str, str], sources: Sources, new_head: bool) -> None:
    """Load what `describe` has described. new_head: leave the model's classifier as it is.

    Raises MissingData where the folder is not there, BenchError where it holds other weights by now.
    """
    folder = find(weights["folder"], sources)
    if folder is None:
        raise MissingData(
            f"no folder {weights['folder']} with a config.json in --checkpoints {sources.checkpoints}"
        )
    if _digest(folder) != weights["sha256"]:
        raise BenchError(f"{folder} holds other weights than those planned with")
    _, tensors = _read(folder)
    model.load_state_dict(held_to(model, tensors, folder, new_head))


def _read(folder: Path) -> tuple[Blueprint, dict[str, Tensor]]:
    try:
        blueprint, tensors, kind, known = saved.read(folder)
    except SmiError as error:
        raise BenchError(str(error)) from None
    if not known:
        note(
            f"{folder}: no image processor says how pictures of this {kind} are normalised; ImageNet's mean and std "
            "are taken"
        )
    return blueprint, tensors


def _outline(blueprint: Blueprint, folder: Path) -> nn.Module:
    """The model without values (on the meta device)."""
    try:
        with saved.fitting_values(folder), torch.device("meta"):
            return blueprint.build()
    except SmiError as error:
        raise BenchError(str(error)) from None


def _digest(folder: Path) -> str:
    """Of all files that say what the model is, by their contents."""
    files = "\n".join(f"{path.name}\t{sha256_of(path)}" for path in saved.files(folder))
    return hashlib.sha256(files.encode()).hexdigest()

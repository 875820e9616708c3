"""Weights of our own models that come with the project, so that a scale's tables need no training first.

`<name>.<data set>.safetensors` holds float16 values, which in float32 are the model, and in its metadata the mean and
deviation of the pictures; `.json` beside it says how it was trained, on what, the loss of every epoch, and how well it
does on the validation split.
`python -m bench publish_weights` makes the files from a store in which the models were trained (`--retrain`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.engine import atomic
from bench.engine.atomic import sha256_of
from bench.errors import BenchError

FOLDER = Path(__file__).parent / "weights_published"


def find(name: str, dataset: str, recipe: Mapping[str, Any]) -> dict[str, Any] | None:
    """What identifies published weights, {"published", "sha256"}; None where there are none of that name, or they were
    trained by another recipe (see `recipe_of`).

    BenchError where the file is not the one that its record was written for.
    """
    path, record = _files(f"{name}.{dataset}")
    if not path.exists() or not record.exists():
        return None
    told = json.loads(record.read_text(encoding="utf-8"))
    if told["recipe"] != recipe:
        return None
    found, wanted = sha256_of(path), told["sha256"]
    if found != wanted:
        raise BenchError(
            f"{path} is damaged: its sha256 is {found[:12]}..., its record says {wanted[:12]}..."
        )
    return {"published": f"{name}.{dataset}", "sha256": found}


def recipe_of(
    settings: Mapping[str, Any], tutor: Mapping[str, Any] | None, classes: Sequence[int] | None = None
) -> dict[str, Any]:
    """How a model is trained but for the pictures: from the settings of its "teacher" task, and those of its tutor's.
    classes: that it learns, where not all."""

    def told(one: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "architecture": one["model"]["architecture"],
            "training": one["training"],
            "seed": one["seed"],
        }

    recipe = told(settings) | ({} if classes is None else {"classes": list(classes)})
    return recipe | ({} if tutor is None else {"tutor": told(tutor)})


def read(weights: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[float], list[float]]:
    """(state dict in float32, mean and deviation of each channel of the pictures). weights: as `find` gives it."""
    path, _ = _files(weights["published"])
    if not path.exists() or sha256_of(path) != weights["sha256"]:
        raise BenchError(f"{path} holds other weights than those planned with ({weights['sha256'][:12]}...)")
    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (no dict)
            told = file.metadata()
    except SafetensorError as error:
        raise BenchError(f"{path} is damaged: {error}") from None
    return state, json.loads(told["mean"]), json.loads(told["std"])


def write(
    folder: Path, name: str, state: Mapping[str, Tensor], data: Mapping[str, Any], record: Mapping[str, Any]
) -> Path:
    """Write weights, rounded to float16, with their record; the path of the weights. data: mean, std."""
    path = folder / f"{name}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    told = {key: json.dumps([float(value) for value in data[key]]) for key in ("mean", "std")}
    unfinished = path.with_suffix(".part")
    save_file({key: value.half().contiguous() for key, value in state.items()}, unfinished, told)
    unfinished.chmod(0o644)  # safetensors' own are their owner's alone
    unfinished.replace(path)
    atomic.write_json(path.with_suffix(".json"), {**record, "sha256": sha256_of(path)})
    return path


def _files(name: str) -> tuple[Path, Path]:
    return FOLDER / f"{name}.safetensors", FOLDER / f"{name}.json"

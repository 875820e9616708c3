"""A folder as transformers' `save_pretrained` writes it: config.json, model.safetensors, preprocessor_config.json."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from smi.errors import UnsupportedModel
from smi.foreign import processor, transformers
from smi.foreign.blueprint import Blueprint

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


def is_one(folder: str | Path) -> bool:
    """Whether a folder holds a config.json."""
    return (Path(folder) / CONFIG).is_file()


def files(folder: str | Path) -> list[Path]:
    """The files that say what the model is, for whoever must know it again."""
    folder = Path(folder)
    found = [folder / CONFIG, *_weights(folder)]
    return [*found, folder / processor.FILE] if (folder / processor.FILE).is_file() else found


@contextmanager
def fitting_values(folder: str | Path) -> Iterator[None]:
    """What a value of the wrong kind in the folder's JSON files breaks in the block, as UnsupportedModel, one line."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as cause:
        what = f"{type(cause).__name__}: {' '.join(str(cause).split())[:160]}"
        raise UnsupportedModel(
            f"{folder}: a value in {CONFIG}, {INDEX} or {processor.FILE} is not of the kind that transformers write "
            f"there ({what})"
        ) from cause


def read(
    folder: str | Path, processor_given: Any = None, image_size: tuple[int, int] | None = None
) -> tuple[Blueprint, dict[str, Tensor], str, bool]:
    """(blueprint, weights by timm's names, name of the class, is the normalisation known).

    DINOv2 without image_size is taken at the size that its image processor gives it, as transformers runs it.
    Raises UnsupportedModel with one line: not such a folder, a damaged file, a model that is not handled.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UnsupportedModel(f"{folder}: no such folder")
    if not is_one(folder):
        raise UnsupportedModel(
            f"{folder}: there is no {CONFIG}; allowed: a folder that save_pretrained wrote"
        )
    with fitting_values(folder):
        return _read(folder, processor_given, image_size)


def _read(
    folder: Path, processor_given: Any, image_size: tuple[int, int] | None
) -> tuple[Blueprint, dict[str, Tensor], str, bool]:
    config = processor.read_json(folder / CONFIG)
    kinds = config.get("architectures") or [f"a {config.get('model_type', 'nameless model')}"]
    settings = processor.settings_of(folder if processor_given is None else processor_given)
    kind = str(kinds[0])
    if (
        image_size is None
        and settings is not None
        and kind in transformers.KINDS
        and transformers.KINDS[kind].resamples
    ):
        image_size = processor.image_size(settings)
    state: dict[str, Tensor] = {}
    if kind in transformers.KINDS:
        for path in _weights(folder):
            try:
                state |= load_file(path)
            except (SafetensorError, OSError) as cause:
                raise UnsupportedModel(f"{path}: damaged ({type(cause).__name__}: {cause})") from cause
    blueprint, tensors = transformers.converted(kind, config, state, image_size)
    told = {} if settings is None else processor.data_config(settings)
    return replace(blueprint, **told), tensors, kind, "mean" in told


def _weights(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        names = processor.read_json(folder / INDEX).get("weight_map", {}).values()
        # a name is of a file in the folder, never a way out of it
        return sorted({folder / Path(str(name)).name for name in names})
    raise UnsupportedModel(
        f"{folder}: there is no {WEIGHTS}; allowed: weights as safetensors (save_pretrained writes them)"
    )

"""What an image processor of transformers does to a picture, as timm's data config says it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smi.errors import UnsupportedModel

FILE = "preprocessor_config.json"
INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def settings_of(processor: Any) -> Mapping[str, Any] | None:
    """The settings of an image processor: the object, its `to_dict()`, its file, or a folder that may hold the file.

    None for a folder without one. Raises UnsupportedModel for anything else.
    """
    if isinstance(processor, Mapping):
        return processor
    if isinstance(processor, (str, Path)):
        path = Path(processor)
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            return None
        return read_json(path)
    processor = getattr(processor, "image_processor", processor)  # of a processor of images and text
    if hasattr(processor, "image_mean") and hasattr(processor, "to_dict"):
        return dict(processor.to_dict())
    raise UnsupportedModel(
        f"processor is a {type(processor).__name__}; allowed: an image processor of transformers, its settings, or the "
        f"folder that holds its {FILE}"
    )


def data_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """{"mean", "std", "interpolation", "crop_pct"} for pixels in [0, 1]; what is not said is left out."""
    config: dict[str, Any] = {}
    # pixels of 0 to 255 are multiplied by this before mean and std are applied
    scale = 255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 255.0
    if not settings.get("do_normalize", True):
        config |= {"mean": (0.0,), "std": (1 / scale,)}
    elif "image_mean" in settings and "image_std" in settings:
        for name in ("mean", "std"):
            config[name] = tuple(float(value) / scale for value in settings[f"image_{name}"])
    if settings.get("resample") in INTERPOLATIONS:
        config["interpolation"] = INTERPOLATIONS[settings["resample"]]
    crop, size = image_size(settings), settings.get("size")
    shortest = size.get("shortest_edge") if isinstance(size, Mapping) else size
    if (
        crop is not None
        and settings.get("do_center_crop")
        and isinstance(shortest, int)
        and shortest >= crop[0]
    ):
        config["crop_pct"] = crop[0] / shortest
    return config


def image_size(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """(rows, columns) of the pixels that come out, if the settings say so."""
    if settings.get("do_center_crop"):
        size = settings.get("crop_size")
    else:
        size = settings.get("size") if settings.get("do_resize", True) else None
    if isinstance(size, Mapping) and {"height", "width"} <= set(size):
        return int(size["height"]), int(size["width"])
    return (size, size) if isinstance(size, int) else None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; UnsupportedModel with one line for anything else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnsupportedModel(f"{path}: no such file") from None
    except (OSError, ValueError) as cause:
        raise UnsupportedModel(f"{path}: not readable as JSON ({cause})") from cause
    if not isinstance(values, dict):
        raise UnsupportedModel(f"{path}: holds a {type(values).__name__}; allowed: a JSON object")
    return values

"""What data sets share: pictures as torch data sets, how they are sized, and which are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset as TorchDataset

from bench.datasets.decoding import read_picture
from bench.errors import BenchError, RefusedSetting

FINGERPRINT_LENGTH = 16  # hexadecimal digits of a sha256
VALIDATION = 0.1  # share of each class's training pictures held out, where a data set has no split
SPLIT_SEED = 0
SUBSET_SEED = 0


class Pictures(TorchDataset):
    """`count` pictures, each made when asked for: float32 [C, H, W] in [0, 1] and a label."""

    def __init__(self, count: int, make: Callable[[int], tuple[torch.Tensor, int]]) -> None:
        self.count, self.make = count, make

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.make(index)


class PictureFolder(TorchDataset):
    """Labelled picture files, decoded as RGB (bench.datasets.decoding.read_picture)."""

    def __init__(self, files: list[tuple[Path, int]], transform, upright: bool = True) -> None:
        self.files, self.transform, self.upright = files, transform, upright

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.files[index]
        return self.transform(read_picture(path, self.upright)), label


def fit_transform(data_config: Mapping[str, Any], crop_pct: float = 0.875) -> Callable:
    """RGB picture of PIL -> float32 [C, H, W] in [0, 1], resized and centre-cropped to what the model takes.

    A model of one channel is shown grey pictures (ITU-R 601 luma). BenchError for other numbers than 1 and 3."""
    from timm.data import create_transform

    size = tuple(data_config["input_size"])
    if size[0] not in (1, 3):
        raise BenchError(f"the model takes pictures of {size[0]} channels; allowed: 3 (colour) or 1 (grey)")
    fit = create_transform(
        input_size=size,
        interpolation=data_config.get("interpolation", "bicubic"),
        crop_pct=crop_pct,
        mean=(0.0,) * size[0],
        std=(1.0,) * size[0],
    )
    return fit if size[0] == 3 else lambda picture: fit(picture.convert("L"))


@cache
def held_out(labels: tuple[int, ...]) -> dict[str, list[int]]:
    """Indices of "train" and "validation": of each class a tenth (at least one of two) is held out, the same always."""
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        by_class.setdefault(label, []).append(index)
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    validation = set()
    for label in sorted(by_class):
        indices = by_class[label]
        count = max(1, round(VALIDATION * len(indices))) if len(indices) > 1 else 0
        order = torch.randperm(len(indices), generator=generator)[:count]
        validation.update(indices[place] for place in order.tolist())
    train = [index for index in range(len(labels)) if index not in validation]
    return {"train": train, "validation": sorted(validation)}


def stratified(pictures: Sequence[tuple[int, str]], count: int) -> list[int]:
    """Places of `count` of the pictures (label, name), all if there are no more, in order of label and name.

    Classes take turns until all places are given, so that their numbers differ by one at most where none runs out. What
    is drawn hangs on labels and names alone, through a hash with a fixed seed: neither on folders nor on a library's
    random numbers."""

    def drawn(place: int) -> str:
        label, name = pictures[place]
        text = f"{SUBSET_SEED}/{label}/{name}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    turns, order = {}, sorted(range(len(pictures)), key=lambda place: (drawn(place), pictures[place]))
    taken: dict[int, int] = {}
    for place in order:
        label = pictures[place][0]
        turns[place] = taken[label] = taken.get(label, 0) + 1
    chosen = sorted(order, key=turns.__getitem__)[:count]  # stable: within a turn, as drawn
    return sorted(chosen, key=pictures.__getitem__)


def allow_settings(name: str, settings: Mapping[str, Any], allowed: tuple[str, ...] = ()) -> None:
    """Refuse settings that the data set does not know."""
    for key in settings:
        if key not in allowed:
            known = ", ".join(allowed) or "none"
            raise RefusedSetting(f"data set {name}: unknown setting {key!r}; allowed: {known}")

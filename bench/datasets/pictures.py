"""What data sets share: pictures as torch data sets, and which are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from bench.datasets.decoding import read_picture
from bench.datasets.fitting import Fit, unit_range
from bench.errors import RefusedSetting

if TYPE_CHECKING:
    from PIL.Image import Image

FINGERPRINT_LENGTH = 16  # hexadecimal digits of a sha256
VALIDATION = 0.1  # share of each class's training pictures held out, where a data set has no split
SPLIT_SEED = 0
SUBSET_SEED = 0


class Pictures(TorchDataset):
    """Pictures made when asked for, in 8 bits a channel: `pixels(i)`. As a torch data set: float32 [C, H, W] in [0, 1]
    and a label. What a subclass reads is sized by `fit`; several threads read at once."""

    def __init__(self, labels: Sequence[int], fit: Fit) -> None:
        self.labels, self.fit = labels, fit

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return unit_range(self.pixels(index)), int(self.labels[index])

    def made_by(self) -> dict[str, Any]:
        """What turns the pictures into pixels, beside the libraries: JSON values."""
        return {"read": type(self).__name__, "fit": {**asdict(self.fit), "size": list(self.fit.size)}}

    def pixels(self, index: int) -> Tensor:
        """One picture, uint8 [C, H, W]."""
        return self.fit(self.read(index))

    def read(self, index: int) -> Image:
        """One picture as it is kept, RGB."""
        raise NotImplementedError


class PictureFolder(Pictures):
    """Labelled picture files, decoded as RGB (bench.datasets.decoding.read_picture)."""

    def __init__(self, files: list[tuple[Path, int]], fit: Fit, upright: bool = True) -> None:
        super().__init__([label for _, label in files], fit)
        self.files, self.upright = files, upright

    def made_by(self) -> dict[str, Any]:
        return {**super().made_by(), "upright": self.upright}

    def read(self, index: int) -> Image:
        return read_picture(self.files[index][0], self.upright)


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

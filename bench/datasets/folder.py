"""Any folder of pictures by class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset as TorchDataset

from bench.datasets.pictures import (
    FINGERPRINT_LENGTH,
    PICTURE_SUFFIXES,
    PictureFolder,
    allow_settings,
    fit_transform,
    held_out,
)
from bench.datasets.places import find_folder
from bench.engine.task import Sources
from bench.errors import BenchError


class Folder:
    """Any pictures in folders by class: DIR/train/<class>/*.jpg and DIR/test/ (or DIR/val/), classes in their order.

    With train, val and test all there, val is the validation split; otherwise a tenth of each class of train is.
    Given with --data NAME=DIR; CUB-200 and MiniImageNet have no other way.
    """

    splits = ("train", "validation", "test")
    crop_pct = 0.875

    def __init__(self, name: str, settings: Mapping[str, Any], sources: Sources) -> None:
        allow_settings(name, settings)
        self.name = name
        layout = "train/<class>/*.jpg and test/<class>/*.jpg"
        root = find_folder(name, sources, self._lies_in, None, layout)
        self.test = root / "test" if (root / "test").is_dir() else root / "val"
        self.train = root / "train"
        self.validation = root / "val" if self.test.name == "test" and (root / "val").is_dir() else None
        self.labels = {entry: label for label, entry in enumerate(_class_folders(self.train))}
        if len(self.labels) < 2:
            raise BenchError(
                f"data set {name}: {self.train} holds {len(self.labels)} class folders; at least 2 needed"
            )

    @property
    def classes(self) -> int:
        return len(self.labels)

    def fingerprint(self, split: str) -> str:
        root = self.train.parent
        files = self._files(split)
        text = "\n".join(f"{path.relative_to(root).as_posix()}\t{path.stat().st_size}" for path, _ in files)
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:FINGERPRINT_LENGTH]

    def split(self, name: str, data_config: Mapping[str, Any]) -> TorchDataset:
        return PictureFolder(self._files(name), fit_transform(data_config, self.crop_pct))

    def _files(self, split: str) -> list[tuple[Path, int]]:
        if split == "test":
            return self._within(self.test)
        if self.validation is not None:
            return self._within(self.validation if split == "validation" else self.train)
        files = self._within(self.train)
        chosen = held_out(tuple(label for _, label in files))[split]
        return [files[index] for index in chosen]

    def _within(self, folder: Path) -> list[tuple[Path, int]]:
        found = []
        for entry in _class_folders(folder):
            if entry not in self.labels:
                raise BenchError(f"data set {self.name}: {folder / entry} is no class of {self.train}")
            found += [(path, self.labels[entry]) for path in _pictures_in(folder / entry)]
        if not found:
            raise BenchError(f"data set {self.name}: {folder} holds no pictures in class folders")
        return found

    @staticmethod
    def _lies_in(root: Path) -> Path | None:
        there = (root / "train").is_dir() and any((root / name).is_dir() for name in ("test", "val"))
        return root if there else None


def _class_folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)

"""Any folder of pictures by class."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset as TorchDataset

from bench.datasets.fitting import fit_transform
from bench.datasets.listing import (
    PICTURE_SUFFIXES,
    class_folders,
    holds_files,
    pictures_in,
    pictures_of_class,
    size_of,
)
from bench.datasets.pictures import (
    FINGERPRINT_LENGTH,
    PictureFolder,
    allow_settings,
    held_out,
)
from bench.datasets.places import find_folder
from bench.engine.task import Sources
from bench.errors import BenchError


class Folder:
    """Any pictures in folders by class: DIR/train/<class>/*.jpg and DIR/test/ (or DIR/val/), classes in their order
    (as text, which is how torchvision's ImageFolder labels what a model of one's own was trained on).

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
        self.labels = self._labels([e for e in class_folders(self.train) if self._is_class(self.train / e)])
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
        text = "\n".join(f"{path.relative_to(root).as_posix()}\t{size_of(path)}" for path, _ in files)
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:FINGERPRINT_LENGTH]

    def split(self, name: str, data_config: Mapping[str, Any]) -> TorchDataset:
        return PictureFolder(self._files(name), fit_transform(data_config, self.crop_pct))

    def count(self, split: str) -> int:
        return len(self._files(split))

    def _labels(self, entries: list[str]) -> dict[str, int]:
        return {entry: label for label, entry in enumerate(entries)}

    def _is_class(self, folder: Path) -> bool:
        """Whether the folder holds pictures; not if it is empty. BenchError if it holds other files alone."""
        if next(pictures_in(folder), None) is not None:
            return True
        if holds_files(folder):
            readable = ", ".join(sorted(PICTURE_SUFFIXES))
            raise BenchError(f"data set {self.name}: {folder} holds files, but no pictures ({readable})")
        return False

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
        for entry in class_folders(folder):
            if entry in self.labels:
                found += [(path, self.labels[entry]) for path in pictures_of_class(folder / entry)]
            elif not (self.train / entry).is_dir() or self._is_class(folder / entry):
                raise BenchError(f"data set {self.name}: {folder / entry} is no class of {self.train}")
        if not found:
            raise BenchError(f"data set {self.name}: {folder} holds no pictures in class folders")
        return found

    @staticmethod
    def _lies_in(root: Path) -> Path | None:
        there = (root / "train").is_dir() and any((root / name).is_dir() for name in ("test", "val"))
        return root if there else None

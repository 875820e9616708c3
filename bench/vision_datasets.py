"""Data sets of the transfer experiments: Oxford 102 Flowers, any folder of pictures by class, and where they lie.

Each (CIFAR too, bench/cifar.py) is looked for in the folder given with --data NAME=DIR, then in the cache
(SMI_DATA_CACHE, or ~/.cache/smi/datasets), then fetched through torchvision where that is allowed and possible.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset as TorchDataset

from bench.errors import BenchError, MissingData
from bench.task import Sources

FINGERPRINT_LENGTH = 16  # hexadecimal digits of a sha256
VALIDATION, SPLIT_SEED = (
    0.1,
    0,
)  # share of each class's training pictures held out, where a data set has no split
FETCH_SECONDS = 30  # without a byte, until a download is given up


class Flowers102:
    """Oxford 102 Flowers: jpg/image_*.jpg, imagelabels.mat, setid.mat; the official train, validation and test."""

    classes = 102
    splits = ("train", "validation", "test")
    IDS = {"train": "trnid", "validation": "valid", "test": "tstid"}

    def __init__(self, settings: Mapping[str, Any], sources: Sources) -> None:
        refuse_settings("flowers102", settings)
        layout = "flowers-102/{jpg/image_*.jpg,imagelabels.mat,setid.mat}"
        self.root = find_folder("flowers102", sources, self._lies_in, self._fetch, layout)

    def fingerprint(self, split: str) -> str:
        text = "\n".join(f"{path.name}\t{label}\t{path.stat().st_size}" for path, label in self._files(split))
        return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_LENGTH]

    def split(self, name: str, data_config: Mapping[str, Any]) -> TorchDataset:
        return decoded(self._files(name), fit_transform(data_config))

    def _files(self, split: str) -> list[tuple[Path, int]]:
        labels, ids = _read_mat(self.root / "imagelabels.mat"), _read_mat(self.root / "setid.mat")
        try:
            of_picture, numbers = labels["labels"].ravel(), ids[self.IDS[split]].ravel()
            return [
                (self.root / "jpg" / f"image_{number:05d}.jpg", int(of_picture[number - 1]) - 1)
                for number in numbers
            ]
        except (KeyError, IndexError) as error:
            raise BenchError(
                f"data set flowers102: {self.root}'s .mat files do not fit together ({error})"
            ) from None

    @staticmethod
    def _lies_in(root: Path) -> Path | None:
        wanted = ("jpg", "imagelabels.mat", "setid.mat")
        return next((p for p in (root / "flowers-102", root) if all((p / n).exists() for n in wanted)), None)

    @staticmethod
    def _fetch(root: Path) -> None:
        from torchvision.datasets import Flowers102 as Fetch

        Fetch(str(root), download=True)


class Folder:
    """Any pictures in folders by class: DIR/train/<class>/*.jpg and DIR/test/ (or DIR/val/), classes in their order.

    With train, val and test all there, val is the validation split; otherwise a tenth of each class of train is.
    Given with --data NAME=DIR; CUB-200 and MiniImageNet have no other way.
    """

    splits = ("train", "validation", "test")

    def __init__(self, name: str, settings: Mapping[str, Any], sources: Sources) -> None:
        refuse_settings(name, settings)
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
        return decoded(self._files(name), fit_transform(data_config))

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


def decoded(files: list[tuple[Path, int]], transform: Callable) -> TorchDataset:
    """Labelled picture files as a data set."""
    from bench.datasets import PictureFolder

    return PictureFolder(files, transform)


def fit_transform(data_config: Mapping[str, Any], crop_pct: float = 0.875) -> Callable:
    """PIL picture -> float32 [C, H, W] in [0, 1], resized and centre-cropped to what the model takes."""
    from timm.data import create_transform

    return create_transform(
        input_size=tuple(data_config["input_size"]),
        interpolation=data_config.get("interpolation", "bicubic"),
        crop_pct=crop_pct,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


def find_folder(
    name: str,
    sources: Sources,
    lies_in: Callable[[Path], Path | None],
    fetch: Callable[[Path], None] | None,
    layout: str,
) -> Path:
    """Where a data set lies: the folder given, the cache, or the cache after a download. Raises MissingData."""
    given = sources.data.get(name)
    if given is not None:
        found = lies_in(Path(given))
        if found is None:
            raise MissingData(f"data set {name}: {given} does not hold {layout}")
        return found
    cached = cache_folder() / name
    found = lies_in(cached)
    if found is None and fetch is not None and sources.download:
        failure = _download(fetch, cached)
        found = lies_in(cached)
    else:
        failure = "" if fetch is None else "not fetched"
    if found is None:
        tried = f" ({failure})" if failure else ""
        raise MissingData(
            f"data set {name} is not on this machine{tried}: give --data {name}=DIR, or put it into {cached}; "
            f"it must hold {layout}"
        )
    return found


def cache_folder() -> Path:
    """Where fetched data sets are kept."""
    return Path(os.environ.get("SMI_DATA_CACHE") or Path.home() / ".cache" / "smi" / "datasets")


def _download(fetch: Callable[[Path], None], folder: Path) -> str:
    """Fetch into the folder; why that failed, or ""."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(FETCH_SECONDS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fetch(folder)
    except Exception as error:  # offline, refused, full disk: all the same to who asked
        return f"fetching it failed: {' '.join(str(error).split())[:120] or type(error).__name__}"
    finally:
        socket.setdefaulttimeout(before)
    return ""


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


def _read_mat(path: Path) -> Mapping[str, Any]:
    from scipy.io import loadmat

    try:
        return loadmat(path)
    except Exception as error:
        raise BenchError(f"{path} cannot be read as a .mat file: {error}") from None


def _class_folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def _pictures_in(folder: Path) -> list[Path]:
    from bench.datasets import PICTURE_SUFFIXES

    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)


def refuse_settings(name: str, settings: Mapping[str, Any]) -> None:
    """These data sets have no settings of their own."""
    for key in settings:
        raise BenchError(f"data set {name}: unknown setting {key!r}; allowed: none")

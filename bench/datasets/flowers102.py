"""Oxford 102 Flowers, with its official splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset as TorchDataset

from bench.datasets.fitting import fit_transform
from bench.datasets.listing import size_of
from bench.datasets.pictures import FINGERPRINT_LENGTH, PictureFolder, allow_settings
from bench.datasets.places import find_folder
from bench.engine.task import Sources
from bench.errors import BenchError


class Flowers102:
    """Oxford 102 Flowers: jpg/image_*.jpg, imagelabels.mat, setid.mat; the official train, validation and test."""

    classes = 102
    splits = ("train", "validation", "test")
    IDS = {"train": "trnid", "validation": "valid", "test": "tstid"}

    def __init__(self, settings: Mapping[str, Any], sources: Sources) -> None:
        allow_settings("flowers102", settings)
        layout = "flowers-102/{jpg/image_*.jpg,imagelabels.mat,setid.mat}"
        self.root = find_folder("flowers102", sources, self._lies_in, self._fetch, layout)

    def fingerprint(self, split: str) -> str:
        text = "\n".join(f"{path.name}\t{label}\t{size_of(path)}" for path, label in self._files(split))
        return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_LENGTH]

    def split(self, name: str, data_config: Mapping[str, Any]) -> TorchDataset:
        return PictureFolder(self._files(name), fit_transform(data_config))

    def count(self, split: str) -> int:
        return len(self._files(split))

    def _files(self, split: str) -> list[tuple[Path, int]]:
        labels, ids = _read_mat(self.root / "imagelabels.mat"), _read_mat(self.root / "setid.mat")
        try:
            of_picture, numbers = labels["labels"].ravel(), ids[self.IDS[split]].ravel()
            for what, values, most in (
                ("label", of_picture, self.classes),
                ("picture", numbers, len(of_picture)),
            ):
                if not all(1 <= value <= most and value == int(value) for value in values):
                    raise ValueError(f"a {what} that is no whole number from 1 to {most}")
            return [
                (self.root / "jpg" / f"image_{int(number):05d}.jpg", int(of_picture[int(number) - 1]) - 1)
                for number in numbers
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
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


def _read_mat(path: Path) -> Mapping[str, Any]:
    from scipy.io import loadmat

    try:
        return loadmat(path)
    except Exception as error:
        raise BenchError(f"{path} cannot be read as a .mat file: {error}") from None

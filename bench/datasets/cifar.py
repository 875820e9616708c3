"""CIFAR-10 and CIFAR-100: the python version, read by an unpickler that knows arrays alone, or folders of pictures."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
from torch.utils.data import Dataset as TorchDataset

from bench.datasets.fitting import Fit, fit_transform
from bench.datasets.folder import Folder
from bench.datasets.imagenet import folder_numbers
from bench.datasets.pictures import FINGERPRINT_LENGTH, Pictures, allow_settings, held_out
from bench.datasets.places import find_folder
from bench.engine.task import Sources
from bench.errors import BenchError

if TYPE_CHECKING:
    from PIL.Image import Image


class ArrayPictures(Pictures):
    """Pictures of an array, uint8 [n, H, W, 3]."""

    def __init__(self, arrays: numpy.ndarray, labels: numpy.ndarray, fit: Fit) -> None:
        super().__init__(labels.tolist(), fit)
        self.arrays = arrays

    def read(self, index: int) -> Image:
        from PIL import Image

        return Image.fromarray(self.arrays[index])


class Cifar:
    """CIFAR's python version: 32 x 32 colour pictures in pickled batches; enlarged to what the model takes.

    A tenth of the training pictures, class by class, is the validation split.
    """

    name: str
    folder: str  # within the archive
    train: tuple[str, ...]
    test: str
    key: str  # of the labels in a batch
    classes: int
    splits = ("train", "validation", "test")

    def __init__(self, settings: Mapping[str, Any], sources: Sources) -> None:
        allow_settings(self.name, settings)
        layout = f"{self.folder}/{{{','.join([*self.train, self.test])}}}"
        self.root = find_folder(self.name, sources, self._lies_in, self._fetch, layout)

    def fingerprint(self, split: str) -> str:
        pictures, labels = self._arrays(split)
        return hashlib.sha256(pictures.tobytes() + labels.tobytes()).hexdigest()[:FINGERPRINT_LENGTH]

    def split(self, name: str, data_config: Mapping[str, Any]) -> TorchDataset:
        return ArrayPictures(*self._arrays(name), fit_transform(data_config, crop_pct=1.0))

    def count(self, split: str) -> int:
        return len(self._arrays(split)[1])

    def _lies_in(self, root: Path) -> Path | None:
        """The folder with all batches, in `root` or in its sub-folder of the archive's name."""
        names = [*self.train, self.test]
        return next((p for p in (root / self.folder, root) if all((p / n).is_file() for n in names)), None)

    def _fetch(self, root: Path) -> None:
        from torchvision import datasets

        (datasets.CIFAR10 if self.classes == 10 else datasets.CIFAR100)(str(root), download=True)

    def _arrays(self, split: str) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Pictures uint8 [n, 32, 32, 3] and labels int64 [n]."""
        names = (self.test,) if split == "test" else self.train
        parts = [_read_batch(self.root / name, self.key, self.classes) for name in names]
        pictures = numpy.concatenate([part[0] for part in parts])
        labels = numpy.concatenate([part[1] for part in parts])
        if split != "test":
            chosen = held_out(tuple(labels.tolist()))[split]
            pictures, labels = pictures[chosen], labels[chosen]
        return pictures, labels


class Cifar10(Cifar):
    name, folder, key, classes = "cifar10", "cifar-10-batches-py", "labels", 10
    train, test = tuple(f"data_batch_{index}" for index in range(1, 6)), "test_batch"


class Cifar100(Cifar):
    name, folder, key, classes = "cifar100", "cifar-100-python", "fine_labels", 100
    train, test = ("train",), "test"


class CifarFolder(Folder):
    """CIFAR as pictures: DIR/train/<class>/*.png and DIR/test/<class>/*.png, classes in the order of their names,
    which is CIFAR's own, or of their numbers from 0. `form` says in every record that these are not the original
    arrays."""

    crop_pct = 1.0

    def __init__(self, version: type[Cifar], settings: Mapping[str, Any], sources: Sources) -> None:
        super().__init__(version.name, settings, sources)
        if self.classes != version.classes:
            raise BenchError(
                f"data set {self.name}: {self.train} holds {self.classes} class folders, not {version.classes}"
            )

    def fingerprint(self, split: str) -> str:
        content = super().fingerprint(split)
        if list(self.labels) == sorted(self.labels):
            return content
        # other results than where folders 0 to 99 were sorted as text
        return hashlib.sha256(f"{content} by number".encode()).hexdigest()[:FINGERPRINT_LENGTH]

    def _labels(self, entries: list[str]) -> dict[str, int]:
        numbers = folder_numbers(entries)
        if numbers and sorted(numbers.values()) != list(range(len(entries))):
            raise BenchError(
                f"data set {self.name}: the class folders of {self.train} are numbers; allowed: names, or 0 to "
                f"{len(entries) - 1}"
            )
        return super()._labels(sorted(entries, key=numbers.get) if numbers else entries)

    @property
    def form(self) -> str:
        lossy = any(path.suffix.lower() in (".jpg", ".jpeg") for path, _ in self._files("test"))
        return "JPEG copies" if lossy else "pictures"


def open_cifar(version: type[Cifar], settings: Mapping[str, Any], sources: Sources) -> Cifar | CifarFolder:
    """CIFAR in whichever form the folder given with --data has."""
    given = sources.data.get(version.name)
    if given is not None and (Path(given) / "train").is_dir():
        return CifarFolder(version, settings, sources)
    return version(settings, sources)


class _ArraysOnly(pickle.Unpickler):
    """Knows what CIFAR's batches are made of (numbers, strings, arrays) and refuses everything else."""

    ALLOWED = {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.numeric", "_frombuffer"),
        ("numpy._core.numeric", "_frombuffer"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it carries {module}.{name}")
        return super().find_class(module, name)


@cache
def _read_batch(path: Path, key: str, classes: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Pictures uint8 [n, 32, 32, 3] and labels int64 [n] of one batch file."""
    try:
        with open(path, "rb") as file:
            batch = _ArraysOnly(file, encoding="latin1").load()
        data, labels = numpy.asarray(batch["data"]), numpy.asarray(batch[key])
        if data.dtype != numpy.uint8 or labels.dtype.kind not in "iu":
            raise ValueError(
                f"pixels {data.dtype} and labels {labels.dtype}, allowed: uint8 and whole numbers"
            )
        pictures, labels = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(numpy.int64)
        if len(pictures) != len(labels) or not len(labels):
            raise ValueError(f"{len(pictures)} pictures, {len(labels)} labels")
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(f"labels in {labels.min()}..{labels.max()}, allowed 0..{classes - 1}")
    except Exception as error:  # a foreign or damaged pickle raises almost anything
        raise BenchError(f"{path} is no batch of CIFAR-{classes}'s python version: {error}") from None
    return numpy.ascontiguousarray(pictures), labels

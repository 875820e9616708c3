"""Data sets by name: where their pictures lie, how they are split, and a fingerprint of what they hold.

A data set is opened with `open_dataset(name, settings, sources)`. It offers splits ("train", "validation",
"test") as torch data sets of (picture float32 [C, H, W] in [0, 1], label int), not normalised: what a model
wants is applied where the model is. Fingerprints go into the settings of tasks, paths never do, so the same
pictures in another folder are the same data. To add a data set, write a class like `Digits` and name it in
`DATASETS`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from bench.cifar import Cifar10, Cifar100
from bench.errors import BenchError, MissingData
from bench.task import Sources
from bench.vision_datasets import Flowers102, Folder

PICTURE_SUFFIXES = {".jpeg", ".jpg", ".png", ".webp", ".bmp"}
FINGERPRINT_LENGTH = 16  # hexadecimal digits of a sha256


class Dataset(Protocol):
    """What the tasks ask of a data set."""

    classes: int
    splits: tuple[str, ...]  # those that are here

    def fingerprint(self, split: str) -> str: ...

    def split(self, name: str, data_config: Mapping[str, Any]) -> TorchDataset:
        """The pictures of a split, sized for a model (`data_config`: input_size (C, H, W), interpolation)."""


class Digits:
    """scikit-learn's bundled handwritten digits: 1797 pictures of 8x8, shown as 32x32 (every pixel 4x4).

    Stratified: 540 pictures to test, 126 to validation (for anything that is chosen), 1131 to train.
    """

    classes = 10
    splits = ("train", "validation", "test")
    TEST, VALIDATION, SPLIT_SEED, ENLARGE = 540, 126, 0, 4

    def __init__(self, settings: Mapping[str, Any], sources: Sources) -> None:
        allow_settings("digits", settings, allowed=())

    def fingerprint(self, split: str) -> str:
        pictures, labels = _digits_splits()[split]
        content = pictures.numpy().tobytes() + labels.numpy().tobytes()
        return hashlib.sha256(content).hexdigest()[:FINGERPRINT_LENGTH]

    def split(self, name: str, data_config: Mapping[str, Any]) -> TorchDataset:
        pictures, labels = _digits_splits()[name]
        size = tuple(data_config["input_size"])
        if size != tuple(pictures.shape[1:]):
            raise BenchError(
                f"data set digits has pictures of {tuple(pictures.shape[1:])}, the model takes {size}"
            )
        return TensorDataset(pictures, labels)


@cache
def _digits_splits() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    small, labels = load_digits(return_X_y=True)

    def divide(indices, size):
        return train_test_split(
            indices, test_size=size, stratify=labels[indices], random_state=Digits.SPLIT_SEED, shuffle=True
        )

    rest, test = divide(list(range(len(labels))), Digits.TEST)
    train, validation = divide(rest, Digits.VALIDATION)
    pictures = torch.as_tensor(small, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    pictures = pictures.repeat_interleave(Digits.ENLARGE, 2).repeat_interleave(Digits.ENLARGE, 3)
    labels = torch.as_tensor(labels, dtype=torch.int64)
    indices = {"train": train, "validation": validation, "test": test}
    return {name: (pictures[chosen], labels[chosen]) for name, chosen in indices.items()}


class ImageNet:
    """ImageNet-1k as folders of pictures: PATH/val/<class>/*.JPEG (torchvision's layout) or PATH/<class>/*.JPEG.

    "test" is the validation set, as everywhere in the field; "train" is there if PATH/train is. Class folders
    carry WordNet ids (any subset of the 1000), or are 1000 in the order of the classes.
    Settings: crop_pct, the share of the resized picture that the centre crop keeps (default .875).
    """

    classes = 1000

    def __init__(self, settings: Mapping[str, Any], sources: Sources) -> None:
        allow_settings("imagenet", settings, allowed=("crop_pct",))
        self.crop_pct = settings.get("crop_pct", 0.875)
        if not isinstance(self.crop_pct, (int, float)) or not 0 < self.crop_pct <= 1:
            raise BenchError(
                f"data set imagenet: crop_pct must be above 0 and at most 1, not {self.crop_pct!r}"
            )
        root = sources.data.get("imagenet")
        if root is None:
            raise MissingData(
                "data set imagenet: no folder given; give it with --imagenet PATH, where PATH/val/<class>/*.JPEG "
                "or PATH/<class>/*.JPEG lie (PATH/train too, for the rows calibrated on real images)"
            )
        self.folders = self._find_folders(Path(root))
        self.splits = tuple(self.folders)

    @staticmethod
    def _find_folders(root: Path) -> dict[str, Path]:
        if not root.is_dir():
            raise MissingData(f"data set imagenet: {root} is not a folder")
        test = root / "val" if (root / "val").is_dir() else root
        if not any(entry.is_dir() for entry in os.scandir(test)):
            archives = sorted(path.name for path in root.glob("*.tar*"))
            unpack = f"; unpack {', '.join(archives)} first" if archives else ""
            raise MissingData(f"data set imagenet: {test} holds no class folders (<class>/*.JPEG){unpack}")
        return {"test": test} | ({"train": root / "train"} if (root / "train").is_dir() else {})

    def fingerprint(self, split: str) -> str:
        """Of names and sizes (test), or of names alone (train: a million `stat` calls take too long)."""
        return _folder_fingerprint(self.folders[split], split == "test")

    def split(self, name: str, data_config: Mapping[str, Any]) -> TorchDataset:
        from timm.data import create_transform

        transform = create_transform(
            input_size=tuple(data_config["input_size"]),
            interpolation=data_config.get("interpolation", "bicubic"),
            crop_pct=self.crop_pct,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
        )
        return PictureFolder(_labelled_files(self.folders[name], imagenet_labels), transform)


DATASETS = {
    "digits": Digits,
    "imagenet": ImageNet,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "flowers102": Flowers102,
    "cub200": partial(Folder, "cub200"),
    "miniimagenet": partial(Folder, "miniimagenet"),
}


def open_dataset(name: str, settings: Mapping[str, Any], sources: Sources) -> Dataset:
    """The data set of that name; any other name that a folder was given for is a folder of pictures by class.

    Raises BenchError if it is unknown or not on this machine."""
    if name not in DATASETS and name in sources.data:
        return Folder(name, settings, sources)
    if name not in DATASETS:
        raise BenchError(
            f"unknown data set {name!r}; known: {', '.join(sorted(DATASETS))}, "
            "and any folder of pictures by class given with --data NAME=DIR"
        )
    return DATASETS[name](settings, sources)


def fingerprint(name: str, settings: Mapping[str, Any], split: str, sources: Sources) -> dict[str, Any]:
    """What names a split in the settings of a task: data set, its settings, split, content."""
    dataset = open_dataset(name, settings, sources)
    if split not in dataset.splits:
        raise MissingData(
            f"data set {name} has no {split} split here; splits found: {', '.join(dataset.splits)}"
        )
    return {"name": name, "settings": dict(settings), "split": split, "content": dataset.fingerprint(split)}


def open_split(named: Mapping[str, Any], data_config: Mapping[str, Any], sources: Sources) -> TorchDataset:
    """The split that `fingerprint` named. Raises BenchError if its content is another by now."""
    dataset = open_dataset(named["name"], named["settings"], sources)
    if named["split"] not in dataset.splits or dataset.fingerprint(named["split"]) != named["content"]:
        raise BenchError(
            f"data set {named['name']}: the {named['split']} split is not the one that was planned with"
        )
    return dataset.split(named["split"], data_config)


def batches(split: TorchDataset, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Pictures [B, C, H, W] and labels [B] in the split's order; files are decoded by worker processes."""
    yield from DataLoader(split, batch_size=size, num_workers=loader_workers(split, size))


def loader_workers(split: TorchDataset, size: int) -> int:
    """Processes that decode a split's pictures: none for tensors, or where starting them takes longer."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if isinstance(split, TensorDataset) or len(split) <= 4 * size else min(8, cpus)


class PictureFolder(TorchDataset):
    """Labelled picture files, decoded as RGB."""

    def __init__(self, files: list[tuple[Path, int]], transform) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        path, label = self.files[index]
        try:
            with Image.open(path) as picture:
                return self.transform(picture.convert("RGB")), label
        except OSError as error:  # truncated, or no picture at all
            raise BenchError(f"{path} cannot be read as a picture: {error}") from None


def imagenet_labels(folders: list[str], where: Path) -> dict[str, int]:
    """Class folder -> label, by WordNet id or, for 1000 folders of other names, by their order."""
    from timm.data import ImageNetInfo

    wordnet = {name: label for label, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}
    if all(name in wordnet for name in folders):
        return {name: wordnet[name] for name in folders}
    if len(folders) == len(wordnet):
        return {name: label for label, name in enumerate(folders)}
    stranger = next(name for name in folders if name not in wordnet)
    raise BenchError(
        f"data set imagenet: {where / stranger} is no ImageNet class; folders must carry WordNet ids "
        f"(n01440764, ...) or be 1000 in the order of the classes, here are {len(folders)}"
    )


def _labelled_files(folder: Path, label_of) -> list[tuple[Path, int]]:
    files = [Path(name) for name in _picture_files(folder)]
    labels = label_of(sorted({path.parts[0] for path in files}), folder)
    return [(folder / path, labels[path.parts[0]]) for path in files]


@cache
def _picture_files(folder: Path) -> tuple[str, ...]:
    """Paths `<class>/.../file` relative to `folder`, sorted by class and name."""
    found = []
    for kind in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()):
        for parent, _, names in os.walk(folder / kind, followlinks=True):
            inside = Path(parent).relative_to(folder)
            found += [
                (inside / name).as_posix() for name in names if Path(name).suffix.lower() in PICTURE_SUFFIXES
            ]
    if not found:
        raise MissingData(
            f"{folder} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))}) in class folders"
        )
    return tuple(sorted(found))


@cache
def _folder_fingerprint(folder: Path, with_sizes: bool) -> str:
    digest = hashlib.sha256()
    for name in _picture_files(folder):
        size = (folder / name).stat().st_size if with_sizes else ""
        digest.update(f"{name}\t{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:FINGERPRINT_LENGTH]


def allow_settings(name: str, settings: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for key in settings:
        if key not in allowed:
            known = ", ".join(allowed) or "none"
            raise BenchError(f"data set {name}: unknown setting {key!r}; allowed: {known}")

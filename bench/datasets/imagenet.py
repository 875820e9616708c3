"""ImageNet-1k from folders of pictures, labelled by WordNet id or by their order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset as TorchDataset

from bench.datasets.fitting import fit_transform
from bench.datasets.listing import PICTURE_SUFFIXES, class_folders, pictures_in, size_of
from bench.datasets.pictures import (
    FINGERPRINT_LENGTH,
    PictureFolder,
    allow_settings,
    stratified,
)
from bench.engine.task import Sources
from bench.errors import BenchError, MissingData, RefusedSetting
from smi.checks import is_number, is_whole


class ImageNet:
    """ImageNet-1k as folders of pictures: PATH/val/<class>/*.JPEG (torchvision's layout) or PATH/<class>/*.JPEG.

    "test" is the validation set, as everywhere in the field; "train" is there if PATH/train is. Class folders
    carry WordNet ids (any subset of the 1000), or are numbered 0 to 999 in the order of those ids (ImageNet-V2).
    Pictures are not turned as their EXIF data say: nor are they where the published top-1 comes from.
    Settings: crop_pct, the share of the resized picture that the centre crop keeps (default .875); subset, of "test" so
    many pictures alone (all, where there are no more), of every class as many as of any other or one more, always the
    same ones: drawn by a fixed seed from labels and file names, so that either layout gives the same pictures.
    """

    classes = 1000

    def __init__(self, settings: Mapping[str, Any], sources: Sources) -> None:
        allow_settings("imagenet", settings, allowed=("crop_pct", "subset"))
        self.crop_pct = settings.get("crop_pct", 0.875)
        if not is_number(self.crop_pct) or not 0 < self.crop_pct <= 1:
            raise RefusedSetting(
                f"data set imagenet: crop_pct must be above 0 and at most 1, not {self.crop_pct!r}"
            )
        self.subset = settings.get("subset")
        if "subset" in settings and not (is_whole(self.subset) and self.subset >= 1):
            raise RefusedSetting(
                f"data set imagenet: subset must be a whole number of at least 1, not {self.subset!r}"
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
        if not class_folders(test):
            archives = sorted(path.name for path in root.glob("*.tar*"))
            unpack = f"; unpack {', '.join(archives)} first" if archives else ""
            raise MissingData(f"data set imagenet: {test} holds no class folders (<class>/*.JPEG){unpack}")
        return {"test": test} | ({"train": root / "train"} if (root / "train").is_dir() else {})

    def fingerprint(self, split: str) -> str:
        """Of names and sizes (test, or its subset), or of names alone (train: a million `stat` calls take too long)."""
        folder = self.folders[split]
        if split == "test" and self.subset is not None:
            return _chosen_fingerprint(folder, self.subset)
        return _folder_fingerprint(folder, split == "test")

    def split(self, name: str, data_config: Mapping[str, Any]) -> TorchDataset:
        folder = self.folders[name]
        if name == "test" and self.subset is not None:
            files = list(_chosen_files(folder, self.subset))
        else:
            files = _labelled_files(folder, imagenet_labels)
        return PictureFolder(files, fit_transform(data_config, self.crop_pct), upright=False)

    def count(self, split: str) -> int:
        found = len(_picture_files(self.folders[split]))
        return found if split != "test" or self.subset is None else min(found, self.subset)


def imagenet_labels(folders: list[str], where: Path) -> dict[str, int]:
    """Class folder -> label, by WordNet id or, for folders 0 to 999 (zeros before them or not), by number."""
    from timm.data import ImageNetInfo

    wordnet = {name: label for label, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}
    if all(name in wordnet for name in folders):
        return {name: wordnet[name] for name in folders}
    numbers = folder_numbers(folders)
    if sorted(numbers.values()) == list(range(len(wordnet))):
        return numbers
    allowed = (
        f"WordNet ids (n01440764, ...), or 0 to {len(wordnet) - 1} in the order of those ids, all of them"
    )
    if sorted(numbers.values()) == list(range(1, len(wordnet) + 1)):
        raise BenchError(
            f"data set imagenet: the folders of {where} are numbered from 1, which ILSVRC's development kit does in "
            f"an order of its own and others in that of the WordNet ids; allowed: {allowed}"
        )
    stranger = next(name for name in folders if name not in wordnet)
    raise BenchError(
        f"data set imagenet: {where / stranger} is no ImageNet class ({len(folders)} class folders here); "
        f"allowed: {allowed}"
    )


def folder_numbers(folders: list[str]) -> dict[str, int]:
    """Class folder -> the number that it is named by; {} unless every name is a whole number."""
    whole = all(name.isascii() and name.isdecimal() for name in folders)
    return {name: int(name) for name in folders} if whole else {}


def _labelled_files(folder: Path, label_of) -> list[tuple[Path, int]]:
    files = [Path(name) for name in _picture_files(folder)]
    labels = label_of(sorted({path.parts[0] for path in files}), folder)
    return [(folder / path, labels[path.parts[0]]) for path in files]


@cache
def _picture_files(folder: Path) -> tuple[str, ...]:
    """Paths `<class>/.../file` relative to `folder`, sorted by class and name."""
    found = []
    for kind in class_folders(folder):
        found += [path.relative_to(folder).as_posix() for path in pictures_in(folder / kind)]
    if not found:
        raise MissingData(
            f"{folder} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))}) in class folders"
        )
    return tuple(sorted(found))


@cache
def _chosen_files(folder: Path, count: int) -> tuple[tuple[Path, int], ...]:
    files = _labelled_files(folder, imagenet_labels)
    places = stratified([(label, path.stem) for path, label in files], count)
    return tuple(files[place] for place in places)


@cache
def _chosen_fingerprint(folder: Path, count: int) -> str:
    digest = hashlib.sha256(b"subset\n")
    for path, label in _chosen_files(folder, count):
        line = f"{label}\t{path.stem}\t{size_of(path)}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:FINGERPRINT_LENGTH]


@cache
def _folder_fingerprint(folder: Path, with_sizes: bool) -> str:
    digest = hashlib.sha256()
    files = _picture_files(folder)
    if folder_numbers(sorted({name.partition("/")[0] for name in files})):
        digest.update(b"labels by number\n")  # other results than where such folders were sorted as text
    for name in files:
        size = size_of(folder / name) if with_sizes else ""
        digest.update(f"{name}\t{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:FINGERPRINT_LENGTH]

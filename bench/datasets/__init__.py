"""Data sets by name: where their pictures lie, how they are split, and a fingerprint of what they hold.

A data set is opened with `open_dataset(name, settings, sources)`. It offers splits ("train", "validation",
"test") as torch data sets of (picture float32 [C, H, W] in [0, 1], label int), not normalised: what a model
wants is applied where the model is. Fingerprints go into the settings of tasks, paths never do, so the same
pictures in another folder are the same data. To add a data set, write a module with a class like
`digits.Digits` and name it in `DATASETS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import TensorDataset

from bench.datasets.cifar import Cifar10, Cifar100, open_cifar
from bench.datasets.decode_cache import DecodeCache, Progress
from bench.datasets.decoded import Decoded
from bench.datasets.digits import Digits
from bench.datasets.flowers102 import Flowers102
from bench.datasets.folder import Folder
from bench.datasets.imagenet import ImageNet
from bench.datasets.loading import load
from bench.datasets.pictures import Pictures
from bench.datasets.placeholder import Placeholder
from bench.engine.task import Sources, canonical_json
from bench.errors import BenchError, MissingData

HELD_BYTES = 2**30  # splits that fit into so much memory are decoded once a process
HELD_SPLITS = 3  # so many of them


class Dataset(Protocol):
    """What the tasks ask of a data set. `form`, where there is one, says in which copy its pictures are here; `shape`
    (C, H, W), where there is one, that they are not resized to what a model takes."""

    classes: int
    splits: tuple[str, ...]  # those that are here

    def fingerprint(self, split: str) -> str: ...

    def count(self, split: str) -> int:
        """How many pictures a split has, found without reading them."""

    def split(self, name: str, data_config: Mapping[str, Any]) -> TorchDataset:
        """The pictures of a split, sized for a model (`data_config`: input_size (C, H, W), interpolation)."""


DATASETS = {
    "digits": Digits,
    "imagenet": ImageNet,
    "cifar10": partial(open_cifar, Cifar10),
    "cifar100": partial(open_cifar, Cifar100),
    "flowers102": Flowers102,
    "cub200": partial(Folder, "cub200"),
    "miniimagenet": partial(Folder, "miniimagenet"),
}


def open_dataset(name: str, settings: Mapping[str, Any], sources: Sources) -> Dataset:
    """The data set of that name; any other name that a folder was given for is a folder of pictures by class.

    Raises BenchError if it is unknown or not on this machine (a Placeholder where `sources` allow it)."""
    if name not in DATASETS and name in sources.data:
        return Folder(name, settings, sources)
    if name not in DATASETS:
        raise BenchError(
            f"unknown data set {name!r}; known: {', '.join(sorted(DATASETS))}, "
            "and any folder of pictures by class given with --data NAME=DIR"
        )
    try:
        return DATASETS[name](settings, sources)
    except MissingData as error:
        if sources.placeholders is None or name in sources.data:
            raise
        sources.placeholders[f"data set {name}"] = str(error)
        return Placeholder(name)


def fingerprint(name: str, settings: Mapping[str, Any], split: str, sources: Sources) -> dict[str, Any]:
    """What names a split in the settings of a task: data set, its settings, split, content, and its form if not the
    original one."""
    dataset = open_dataset(name, settings, sources)
    if split not in dataset.splits:
        raise MissingData(
            f"data set {name} has no {split} split here; splits found: {', '.join(dataset.splits)}"
        )
    named = {"name": name, "settings": dict(settings), "split": split, "content": dataset.fingerprint(split)}
    return named | ({"form": dataset.form} if hasattr(dataset, "form") else {})


_held: dict[str, TensorDataset] = {}


def open_split(
    named: Mapping[str, Any],
    data_config: Mapping[str, Any],
    sources: Sources,
    *,
    few: bool = False,
    progress: Progress = lambda *_: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TorchDataset:
    """The split that `fingerprint` named, of the classes alone that `named["classes"]` lists, if it does.

    Read from the decode cache where `sources` have one, decoded into it first (progress, should_stop: see
    `DecodeCache.obtain`) unless `few` says that most of it will not be read. Else small splits are decoded once a
    process. Raises BenchError if the content is another by now."""
    dataset = open_dataset(named["name"], named["settings"], sources)
    if named["split"] not in dataset.splits or dataset.fingerprint(named["split"]) != named["content"]:
        raise BenchError(
            f"data set {named['name']}: the {named['split']} split is not the one that was planned with"
        )
    size = tuple(data_config["input_size"])
    identity = canonical_json([dict(named), size, data_config.get("interpolation")])
    if identity in _held:
        return _held[identity]
    split = dataset.split(named["split"], data_config)
    if sources.decode_cache is not None and isinstance(split, Pictures):
        store = DecodeCache(sources.decode_cache)
        entry = store.entry(split, named)
        split = (store.look(entry) or split) if few else store.obtain(entry, progress, should_stop)
    ready = isinstance(split, (TensorDataset, Decoded))
    if "classes" not in named and (ready or 4 * len(split) * math.prod(size) > HELD_BYTES):
        return split
    split = in_memory(split)
    if "classes" in named:
        pictures, labels = split.tensors
        chosen = torch.isin(labels, torch.tensor(named["classes"]))
        split = TensorDataset(pictures[chosen], labels[chosen])
    while len(_held) >= HELD_SPLITS:
        del _held[next(iter(_held))]
    _held[identity] = split
    return split


def in_memory(split: TorchDataset) -> TensorDataset:
    """All pictures [N, C, H, W] and labels [N] of a split as tensors."""
    if isinstance(split, TensorDataset):
        return split
    pictures, labels = zip(*batches(split, 256), strict=True)
    return TensorDataset(torch.cat(pictures), torch.cat(labels))


def batches(
    split: TorchDataset, size: int, device: str = "cpu"
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Pictures [B, C, H, W] and labels [B] on the device, in the split's order (bench.datasets.loading)."""
    yield from load(split, size, device)

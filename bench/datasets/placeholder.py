"""Stands for a data set that is not on this machine, where a sweep is only looked at (`--dry-run`, `--status`)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch.utils.data import Dataset as TorchDataset

from bench.errors import MissingData

CLASSES = {
    "imagenet": 1000,
    "cifar10": 10,
    "cifar100": 100,
    "flowers102": 102,
    "cub200": 200,
    "miniimagenet": 100,
}


class Placeholder:
    """A data set of which only the number of classes is known: enough to count tasks, and not their real names."""

    splits = ("train", "validation", "test")

    def __init__(self, name: str) -> None:
        self.name, self.classes = name, CLASSES[name]

    def fingerprint(self, split: str) -> str:
        return "not here"

    def count(self, split: str) -> int:
        return sys.maxsize

    def split(self, name: str, data_config: Mapping[str, Any]) -> TorchDataset:
        raise MissingData(f"data set {self.name} is not on this machine")

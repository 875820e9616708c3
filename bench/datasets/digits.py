"""scikit-learn's handwritten digits: the data of the embedded scale, bundled and offline."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import TensorDataset

from bench.datasets.pictures import FINGERPRINT_LENGTH, allow_settings
from bench.engine.task import Sources
from bench.errors import BenchError


class Digits:
    """scikit-learn's bundled handwritten digits: 1797 pictures of 8x8, shown as 32x32 (every pixel 4x4).

    Stratified: 540 pictures to test, 126 to validation (for anything that is chosen), 1131 to train.
    """

    classes = 10
    splits = ("train", "validation", "test")
    shape = (1, 32, 32)  # C, H, W: they are not resized
    TEST, VALIDATION, SPLIT_SEED, ENLARGE = 540, 126, 0, 4

    def __init__(self, settings: Mapping[str, Any], sources: Sources) -> None:
        allow_settings("digits", settings)

    def fingerprint(self, split: str) -> str:
        pictures, labels = _digits_splits()[split]
        content = pictures.numpy().tobytes() + labels.numpy().tobytes()
        return hashlib.sha256(content).hexdigest()[:FINGERPRINT_LENGTH]

    def split(self, name: str, data_config: Mapping[str, Any]) -> TorchDataset:
        pictures, labels = _digits_splits()[name]
        size = tuple(data_config["input_size"])
        if size != self.shape:
            raise BenchError(f"data set digits has pictures of {self.shape}, the model takes {size}")
        return TensorDataset(pictures, labels)

    def count(self, split: str) -> int:
        return len(_digits_splits()[split][1])


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

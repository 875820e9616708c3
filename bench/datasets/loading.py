"""Batches of a split, decoded by worker processes where that is quicker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torch.utils.data import Dataset as TorchDataset

from bench.engine.provenance import cpu_count
from bench.errors import BenchError


def load(split: TorchDataset, size: int, **order: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Pictures [B, C, H, W] and labels [B], `size` at a time or as DataLoader's `batch_sampler` says.

    Raises the BenchError of a picture that cannot be read as it is, whichever process met it."""
    order = order or {"batch_size": size}
    workers = loader_workers(split, size)
    for batch in DataLoader(_Told(split), collate_fn=_collate, num_workers=workers, **order):
        if isinstance(batch, BenchError):
            raise batch
        yield batch


def loader_workers(split: TorchDataset, size: int) -> int:
    """Processes that decode a split's pictures: none for tensors, or where starting them takes longer."""
    return 0 if isinstance(split, TensorDataset) or len(split) <= 4 * size else min(8, cpu_count())


class _Told(TorchDataset):
    """A split whose BenchErrors come as values: one raised in a worker process arrives as a traceback's text."""

    def __init__(self, split: TorchDataset) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.split[index]
        except BenchError as error:
            return error


def _collate(pairs: list[Any]) -> Any:
    return next((pair for pair in pairs if isinstance(pair, BenchError)), None) or default_collate(pairs)

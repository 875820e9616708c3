"""Batches of a split on a device, decoded by worker processes where that is quicker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from bench.datasets.decoded import Decoded
from bench.datasets.fitting import unit_range
from bench.datasets.pictures import Pictures
from bench.engine.provenance import cpu_count
from bench.errors import BenchError


def load(
    split: TorchDataset, size: int, device: str = "cpu", order: Iterable[list[int]] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures float32 [B, C, H, W] in [0, 1] and labels [B] on the device: `size` at a time, or those that `order`
    lists for each batch.

    To a GPU they go in 8 bits where they were decoded, from pinned memory, and nothing waits for it. Raises the
    BenchError of a picture that cannot be read as it is, whichever process met it."""
    on_gpu = device.startswith("cuda")
    for pixels, labels in raw_batches(split, size, order, pinned=on_gpu):
        if on_gpu:
            pixels, labels = pixels.pin_memory(), labels.pin_memory()  # no copy of what is pinned
        yield unit_range(pixels.to(device, non_blocking=on_gpu)), labels.to(device, non_blocking=on_gpu)


def raw_batches(
    split: TorchDataset, size: int, order: Iterable[list[int]] | None = None, pinned: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """As `load`, in memory, and pictures as they were decoded: uint8, or what the split holds.

    pinned: pictures that are read from a file of pixels come in pinned memory.

    Worker processes send them through pipes. Shared memory, torch's own way, is 64 MB in a container as docker makes
    it: a few batches of 224 x 224 pixels, and a process that needs more of it is ended by a bus error."""
    if isinstance(split, Decoded):
        yield from split.batches(size, order, pinned)
        return
    if isinstance(split, TensorDataset):
        yield from _tensor_batches(split, size, order)
        return
    chosen = {"batch_size": size} if order is None else {"batch_sampler": list(order)}
    loader = DataLoader(
        _Told(split),
        collate_fn=_collate,
        num_workers=loader_workers(split, size),
        generator=torch.Generator(),  # its draws are not taken from whoever loads
        **chosen,
    )
    for batch in loader:
        if isinstance(batch, BenchError):
            raise batch
        pixels, labels = batch
        yield torch.from_numpy(pixels), torch.from_numpy(labels)


def loader_workers(split: TorchDataset, size: int) -> int:
    """Processes that decode a split's pictures: none where starting them takes longer."""
    return 0 if len(split) <= 4 * size else min(8, cpu_count())


def _tensor_batches(
    split: TensorDataset, size: int, order: Iterable[list[int]] | None
) -> Iterator[tuple[Tensor, Tensor]]:
    pictures, labels = split.tensors
    if order is None:
        yield from zip(pictures.split(size), labels.split(size), strict=True)
    else:
        yield from ((pictures[chosen], labels[chosen]) for chosen in order)


class _Told(TorchDataset):
    """A split whose BenchErrors come as values: one raised in a worker process arrives as a traceback's text."""

    def __init__(self, split: TorchDataset) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Any:
        try:
            if isinstance(self.split, Pictures):
                return self.split.pixels(index), self.split.labels[index]
            return self.split[index]
        except BenchError as error:
            return error


def _collate(pairs: list[Any]) -> Any:
    """Two arrays; or the first BenchError. (torch's own collating takes shared memory in a worker process.)"""
    error = next((pair for pair in pairs if isinstance(pair, BenchError)), None)
    if error is not None:
        return error
    pictures = numpy.stack([numpy.asarray(picture) for picture, _ in pairs])
    return pictures, numpy.array([int(label) for _, label in pairs], dtype=numpy.int64)

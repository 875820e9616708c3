"""Batches of a split on a device, decoded by several threads where that is quicker."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import TensorDataset

from bench.datasets.decoded import Decoded
from bench.datasets.fitting import unit_range
from bench.datasets.pictures import Pictures
from bench.engine.provenance import cpu_count

MOST_THREADS = 8  # beyond which Python's lock is what they wait for
AHEAD = 2  # batches that lie ready, or wait for a thread, beyond one for each thread


def load(
    split: TorchDataset, size: int, device: str = "cpu", order: Iterable[list[int]] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures float32 [B, C, H, W] in [0, 1] and labels [B] on the device: `size` at a time, or those that `order`
    lists for each batch.

    To a GPU they go in 8 bits where they were decoded, from pinned memory, and nothing waits for it. Raises the
    BenchError of a picture that cannot be read."""
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

    Threads read the files: decoding and resizing leave Python's lock alone, and a process that is forked from one with
    threads and a GPU may wait for ever for a lock that one of them held (seen on an H200)."""
    if isinstance(split, Decoded):
        yield from split.batches(size, order, pinned)
        return
    if isinstance(split, TensorDataset):
        yield from _tensor_batches(split, size, order)
        return
    if order is None:
        order = (range(first, min(first + size, len(split))) for first in range(0, len(split), size))
    workers = loader_threads(split, size)
    if not workers:
        yield from (_read(split, chosen) for chosen in order)
        return
    rest, pool = iter(order), ThreadPoolExecutor(workers, thread_name_prefix="decoding")
    try:
        ahead = deque(pool.submit(_read, split, chosen) for chosen in islice(rest, workers + AHEAD))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(pool.submit(_read, split, chosen) for chosen in islice(rest, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def loader_threads(split: TorchDataset, size: int) -> int:
    """Threads that decode a split's pictures: none where there is little to gain."""
    return 0 if len(split) <= 4 * size else min(MOST_THREADS, cpu_count())


def _tensor_batches(
    split: TensorDataset, size: int, order: Iterable[list[int]] | None
) -> Iterator[tuple[Tensor, Tensor]]:
    pictures, labels = split.tensors
    if order is None:
        yield from zip(pictures.split(size), labels.split(size), strict=True)
    else:
        yield from ((pictures[chosen], labels[chosen]) for chosen in order)


def _read(split: TorchDataset, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
    pictures = isinstance(split, Pictures)
    pairs = [(split.pixels(index), split.labels[index]) if pictures else split[index] for index in chosen]
    # by numpy: torch's own stacking starts threads for each thread that stacks
    stacked = numpy.stack([numpy.asarray(picture) for picture, _ in pairs])
    labels = numpy.array([int(label) for _, label in pairs], dtype=numpy.int64)
    return torch.from_numpy(stacked), torch.from_numpy(labels)

"""A split decoded once: a file of pixels, and beside it what they were made of and their checksum.

    pixels.u8     uint8 [N, C, H, W], without a header
    about.json    version, made_of, bytes, changed_ns (time of change of pixels.u8), sha256

The file is read, not mapped: reads share the system's cache of files between processes as a map would, and a file that
is cut short or a server that is lost is an error of one line, where a map ends the process with a bus error.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.datasets.pictures import Pictures
from bench.engine import atomic
from bench.engine.task import KEY_LENGTH, canonical_json
from bench.errors import BenchError
from bench.text import one_line

VERSION = 1  # of the form above; raised when it changes
PIXELS, ABOUT = "pixels.u8", "about.json"


class Decoded(Pictures):
    """The pictures of `split`, read from a file that has them decoded."""

    def __init__(self, path: Path, split: Pictures) -> None:
        super().__init__(split.labels, split.fit)
        self.path = path

    def pixels(self, index: int) -> Tensor:
        with open(self.path, "rb", buffering=0) as file:
            return self._read(file.fileno(), index, torch.empty(self.fit.size, dtype=torch.uint8))

    def batches(
        self, size: int, order: Iterable[list[int]] | None = None, pinned: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels uint8 [B, C, H, W], in pinned memory if asked for, and labels [B]: `size` at a time, or as listed."""
        labels = torch.tensor(self.labels, dtype=torch.int64)
        with open(self.path, "rb", buffering=0) as file:
            for chosen in self._in_order(size) if order is None else order:
                pixels = torch.empty((len(chosen), *self.fit.size), dtype=torch.uint8, pin_memory=pinned)
                if isinstance(chosen, range):
                    self._read(file.fileno(), chosen.start, pixels)
                else:
                    for place, index in enumerate(chosen):
                        self._read(file.fileno(), index, pixels[place])
                yield pixels, labels[list(chosen)]

    def _in_order(self, size: int) -> Iterator[range]:
        return (range(first, min(first + size, len(self))) for first in range(0, len(self), size))

    def _read(self, descriptor: int, index: int, pixels: Tensor) -> Tensor:
        """Fill contiguous `pixels` with the file's from picture `index` on."""
        rest, place = memoryview(pixels.numpy()).cast("B"), index * math.prod(self.fit.size)
        while rest:
            try:
                got = os.preadv(descriptor, [rest], place)
            except OSError as error:
                raise BenchError(f"{self.path} cannot be read: {one_line(str(error.strerror))}") from None
            if not got:
                raise BenchError(f"{self.path} ends too early: has something changed it?")
            rest, place = rest[got:], place + got
        return pixels


def key_of(made_of: Mapping[str, Any]) -> str:
    """The name of what is made of this: hexadecimal digits."""
    return hashlib.sha256(canonical_json(made_of).encode()).hexdigest()[:KEY_LENGTH]


def seal(folder: Path, made_of: Mapping[str, Any], sha256: str) -> None:
    """Write what vouches for the pixels in a folder, which were flushed to disk. Raises OSError."""
    stat = (folder / PIXELS).stat()
    about = {
        "version": VERSION,
        "made_of": made_of,
        "bytes": stat.st_size,
        "changed_ns": stat.st_mtime_ns,
        "sha256": sha256,
    }
    atomic.write_json(folder / ABOUT, about)


def about(folder: Path) -> dict[str, Any] | None:
    """What vouches for a folder's pixels; None where nothing readable does, or their number of bytes is another."""
    try:
        said = json.loads((folder / ABOUT).read_bytes())
        whole = said["version"] == VERSION and key_of(said["made_of"]) == folder.name
        return said if whole and (folder / PIXELS).stat().st_size == said["bytes"] else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def is_unchanged(folder: Path) -> bool:
    """Whether the pixels have the size and the time of change that they were sealed with: a quick look."""
    said = about(folder)
    try:
        return said is not None and (folder / PIXELS).stat().st_mtime_ns == said.get("changed_ns")
    except OSError:
        return False


def is_intact(folder: Path) -> bool:
    """Whether the pixels have the checksum that they were sealed with: reads them all."""
    said = about(folder)
    try:
        return said is not None and atomic.sha256_of(folder / PIXELS) == said.get("sha256")
    except OSError:
        return False

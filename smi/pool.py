"""The pool of images a student learns from (paper section 4, knowledge transfer): sets of SyntheticImages dealt to
rounds, drawn from in batches.

A set is held in memory, or stays in its file, of which only the rows drawn are read: the paper's pool (1000 rounds
of 100 images at 224 x 224) would fill 60 GB. Shapes: B images drawn, C channels, H x W pixels, P patches, K kept.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from smi.checks import is_whole
from smi.errors import InvalidImages, InvalidSetting
from smi.geometry import Jitter, PatchGrid
from smi.images import SyntheticImages

Source = SyntheticImages | str | Path


@dataclass(frozen=True)
class _Set:
    """One set of images as the pool needs it: what it is, and how to read some of its rows."""

    name: str
    source: Source
    count: int
    shape: tuple[int, ...]  # C, H, W
    patch_size: tuple[int, ...]
    kept: int | None
    targets: Tensor

    @classmethod
    def of(cls, source: Source, index: int) -> _Set:
        if isinstance(source, SyntheticImages):
            kept = None if source.kept is None else source.kept.shape[1]
            shape = tuple(source.pixels.shape[1:])
            return cls(f"set {index}", source, len(source), shape, source.patch_size, kept, source.targets)
        if not isinstance(source, (str, Path)):
            raise InvalidImages(
                f"set {index} of the pool is a {type(source).__name__}; allowed: SyntheticImages or a path"
            )
        images = SyntheticImages.load(source)  # read once in full: every value is checked
        kept = None if images.kept is None else images.kept.shape[1]
        shape = tuple(images.pixels.shape[1:])
        return cls(str(source), Path(source), len(images), shape, images.patch_size, kept, images.targets)

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Pixels [n, C, H, W] and kept [n, K] or None of some images."""
        if isinstance(self.source, SyntheticImages):
            at = torch.as_tensor(indices, device="cpu")
            kept = self.source.kept
            return self.source.pixels[at], None if kept is None else kept[at]
        try:
            with torch.device("cpu"), safe_open(str(self.source), framework="pt") as file:
                pixels, kept = file.get_slice("pixels"), None
                rows = torch.cat([pixels[i : i + 1] for i in indices])
                if self.kept is not None:
                    kept = torch.cat([file.get_slice("kept")[i : i + 1] for i in indices])
        except (OSError, SafetensorError) as cause:
            raise InvalidImages(f"{self.source}: can no longer be read ({cause})") from cause
        return rows, kept

    def digest(self) -> str:
        """Names the content: of images in memory all of it, of a file its bytes."""
        digest = hashlib.sha256()
        if isinstance(self.source, SyntheticImages):
            for tensor in (self.source.pixels, self.source.kept):
                if tensor is not None:
                    digest.update(str(tuple(tensor.shape)).encode())
                    digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
        else:
            with open(self.source, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


class Pool:
    """Sets of images in `rounds` equal parts; in round r the sets of rounds 0..r are there to be drawn.

    sets: SyntheticImages or paths of saved ones, all of one size and with one number of kept patches.
    patches: show each image through this many of its patches instead of its own kept set, drawn uniformly and anew
        with every draw (the control for any sparse pool). None keeps what the sets say.
    Raises InvalidImages (empty, of another size, labels out of range) and InvalidSetting.
    """

    def __init__(
        self,
        sets: Source | Iterable[Source],
        grid: PatchGrid,
        channels: int,
        classes: int,
        rounds: int = 1,
        patches: int | None = None,
    ) -> None:
        given = [sets] if isinstance(sets, (SyntheticImages, str, Path)) else list(sets)
        if not given:
            raise InvalidImages("the pool is empty: give at least one set of images")
        self.grid, self.rounds, self.patches = grid, rounds, patches
        self.sets = [_Set.of(source, index) for index, source in enumerate(given)]
        for one in self.sets:
            _check_set(one, self.sets[0], grid, channels, classes)
        if len(self.sets) % rounds:
            raise InvalidSetting(
                f"{len(self.sets)} sets of images cannot be dealt to {rounds} rounds: give a multiple of the rounds"
            )
        if patches is not None and (not is_whole(patches) or not 1 <= patches <= grid.patches):
            raise InvalidSetting(f"patches is {patches!r}; allowed: None, or 1 to {grid.patches}")
        self._starts = [0]
        for one in self.sets:
            self._starts.append(self._starts[-1] + one.count)  # no set is empty, so places are unique

    @property
    def kept(self) -> int | None:
        """Patches that each image is shown through; None is all."""
        return self.sets[0].kept if self.patches is None else self.patches

    def size(self, round_: int) -> int:
        """Images that are there in a round."""
        return self._starts[(round_ + 1) * len(self.sets) // self.rounds]

    def draw(
        self, round_: int, count: int, flip: float, jitter: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Pixels [B, C, H, W] in [0, 1] and kept [B, K] or None of B = min(count, images there) different images.

        Each is rolled by its own draw of up to +- jitter of its sides, then mirrored left-right with probability
        `flip`; its kept set moves along.
        """
        there = self.size(round_)
        chosen = torch.randperm(there, generator=generator, device="cpu")[:count]
        moves = _draw_moves(len(chosen), flip, jitter, self.grid, generator)
        pixels, kept = self.take(chosen.tolist())
        if self.patches is not None:
            order = _uniform(len(chosen), self.grid.patches, generator=generator).argsort(dim=1)
            kept = order[:, : self.patches].sort(dim=1).values
        pixels = torch.cat([move.apply(image[None]) for move, image in zip(moves, pixels, strict=True)])
        if kept is not None:
            kept = torch.cat(
                [move.remap(row[None], self.grid) for move, row in zip(moves, kept, strict=True)]
            )
        return pixels, kept

    def take(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Pixels and kept set of the images at these places in the pool, in this order."""
        wanted: dict[int, list[tuple[int, int]]] = {}
        for place, index in enumerate(indices):
            owner = bisect.bisect_right(self._starts, index) - 1
            wanted.setdefault(owner, []).append((place, index - self._starts[owner]))
        parts, order = [], []
        for owner, rows in wanted.items():
            parts.append(self.sets[owner].rows([row for _, row in rows]))
            order += [place for place, _ in rows]
        back = torch.tensor(order, device="cpu").argsort()
        pixels = torch.cat([pixels for pixels, _ in parts])[back]
        kept = [kept for _, kept in parts if kept is not None]  # all sets of a pool have them, or none
        return pixels, torch.cat(kept)[back] if kept else None

    def identity(self) -> dict[str, Any]:
        """JSON values that tell this pool from any other."""
        contents = hashlib.sha256("".join(one.digest() for one in self.sets).encode()).hexdigest()
        return {"pool": contents, "rounds": self.rounds, "patches": self.patches}


def _uniform(*shape: int, generator: torch.Generator) -> Tensor:
    """Numbers from [0, 1), whatever torch's default dtype and device."""
    return torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu")


def _draw_moves(
    count: int, flip: float, jitter: float, grid: PatchGrid, generator: torch.Generator
) -> list[Jitter]:
    """One roll and one toss of a coin for each image."""
    coins = (_uniform(count, generator=generator) < flip).tolist()
    limits = [int(side * jitter + 1e-9) for side in (grid.height, grid.width)]
    rows, columns = (
        torch.randint(-m, m + 1, (count,), generator=generator, device="cpu").tolist() for m in limits
    )
    return [Jitter(*move) for move in zip(rows, columns, coins, strict=True)]


def _check_set(one: _Set, first: _Set, grid: PatchGrid, channels: int, classes: int) -> None:
    """InvalidImages naming the set that does not fit the teacher or the sets before it."""
    expected = (channels, grid.height, grid.width)
    if not one.count:
        raise InvalidImages(f"{one.name} of the pool holds no images: at least 1 is needed")
    if one.shape != expected:
        raise InvalidImages(
            f"{one.name} of the pool has images of {list(one.shape)}, the teacher takes {list(expected)} (C, H, W)"
        )
    patch = (grid.patch_height, grid.patch_width)
    if one.kept is not None and tuple(one.patch_size) != patch:
        raise InvalidImages(
            f"{one.name} of the pool keeps patches of {tuple(one.patch_size)} pixels, the teacher's are of {patch}"
        )
    if one.kept != first.kept:
        shown = ["all" if kept is None else kept for kept in (one.kept, first.kept)]
        raise InvalidImages(
            f"{one.name} of the pool keeps {shown[0]} patches, {first.name} {shown[1]}: one pool needs one number"
        )
    low, high = int(one.targets.min()), int(one.targets.max())
    if low < 0 or high >= classes:
        raise InvalidImages(
            f"{one.name} of the pool has labels in {low}..{high}; the teacher's classes are 0..{classes - 1}"
        )

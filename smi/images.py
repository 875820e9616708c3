"""SyntheticImages: what an inversion gives, and what quantization and transfer take.

Shapes: B = count images, C channels, H x W pixels, P patches, K kept.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, SupportsIndex

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from smi import pictures
from smi.errors import InvalidImages
from smi.files import load_tensors, save_tensors
from smi.geometry import PatchGrid, kept_mask, patchify, unpatchify


@dataclass(eq=False, repr=False)
class SyntheticImages:
    """Images with the patches that were inverted.

    pixels: float32 [B, C, H, W] in [0, 1]; stopped patches hold their last value.
    targets: int64 [B], the class each image was inverted for.
    kept: int64 [B, K], sorted patch indices, or None when dense.
    patch_size: (ph, pw) pixels; (0, 0) for a model without patches.
    trajectory, part: int64 [B], for images of a Rebirth: which run of the inversion an image is from, and which of its
        parts; images of one trajectory share target, start and pixels, and no patch. Else None.
    made: how they were made (JSON values): recipe, seed, schedule, history of the loss, seconds, ...
    traces: what the run was asked to keep: "snapshot_pixels" [S, B, C, H, W] and "snapshot_mask" bool
        [S, B, P] at made["snapshots"]; "importance" [stops, B, P], NaN where a patch had stopped for good before.
    """

    pixels: Tensor
    targets: Tensor
    kept: Tensor | None = None
    patch_size: tuple[int, int] = (0, 0)
    made: Mapping[str, Any] = field(default_factory=dict)
    traces: Mapping[str, Tensor] = field(default_factory=dict)
    trajectory: Tensor | None = None
    part: Tensor | None = None

    def __post_init__(self) -> None:
        pixels, targets, kept = self.pixels, self.targets, self.kept
        if pixels.ndim != 4 or pixels.dtype != torch.float32:
            raise InvalidImages(
                f"pixels must be float32 [count, C, H, W], got {pixels.dtype} {list(pixels.shape)}"
            )
        if not ((pixels >= 0) & (pixels <= 1)).all():  # false for NaN too
            raise InvalidImages("pixels must lie in [0, 1]")
        if targets.dtype != torch.int64 or targets.shape != pixels.shape[:1]:
            raise InvalidImages(
                f"targets must be int64 [{len(pixels)}], got {targets.dtype} {list(targets.shape)}"
            )
        for name in ("trajectory", "part"):
            told = getattr(self, name)
            if told is not None and (told.dtype != torch.int64 or told.shape != targets.shape):
                raise InvalidImages(
                    f"{name} must be int64 [{len(pixels)}], got {told.dtype} {list(told.shape)}"
                )
        if kept is None:
            return
        if kept.dtype != torch.int64 or kept.ndim != 2 or len(kept) != len(pixels) or kept.shape[1] < 1:
            raise InvalidImages(
                f"kept must be int64 [{len(pixels)}, K >= 1], got {kept.dtype} {list(kept.shape)}"
            )
        patches = self.grid.patches
        if len(kept) and (kept.min() < 0 or kept.max() >= patches or (kept.diff(dim=1) <= 0).any()):
            raise InvalidImages(f"kept must hold sorted patch indices, none twice, from 0 to {patches - 1}")

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: SupportsIndex | slice | Sequence[int] | Tensor) -> SyntheticImages:
        """The images at an index, a slice, or several indices, as a set again (of one image for an index)."""
        if isinstance(index, slice):
            return self.select(index)
        if isinstance(index, numbers.Integral):  # numpy's too
            position = int(index)
            if not -len(self) <= position < len(self):
                raise IndexError(f"there is no image {position} among {len(self)}")
            return self.select(torch.tensor([position]))
        return self.select(torch.as_tensor(index))

    def __iter__(self) -> Iterator[SyntheticImages]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """The same pixels, targets and kept patches, to the bit; how they were made does not matter."""
        if not isinstance(other, SyntheticImages):
            return NotImplemented
        if (self.kept is None) != (other.kept is None) or tuple(self.patch_size) != tuple(other.patch_size):
            return False
        same = self.pixels.equal(other.pixels) and self.targets.equal(other.targets)
        return same and (self.kept is None or other.kept is None or self.kept.equal(other.kept))

    __hash__ = None  # type: ignore[assignment]  # tensors can be changed

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.pixels.shape[1:]))
        kept = "all patches" if self.kept is None else f"{self.kept.shape[1]} of {self.grid.patches} patches"
        recipe = self.made.get("recipe")
        name = recipe.get("name") if isinstance(recipe, Mapping) else None
        told = {"recipe": name, "iterations": self.made.get("iterations"), "seed": self.made.get("seed")}
        how = "".join(f", {what} {value}" for what, value in told.items() if value is not None)
        return f"SyntheticImages({len(self)} images of {size}, {kept}{how})"

    @property
    def count(self) -> int:
        return len(self)

    @property
    def grid(self) -> PatchGrid:
        """The patch grid; InvalidImages for images of a model without patches."""
        if not all(self.patch_size):
            raise InvalidImages("these images have no patch grid: they come from a model without patches")
        height, width = self.pixels.shape[2:]
        return PatchGrid.of(height, width, *self.patch_size)

    def mask(self) -> Tensor:
        """bool [B, P], true where a patch is kept (everywhere when dense)."""
        if self.kept is None:
            return torch.ones(len(self), self.grid.patches, dtype=torch.bool, device=self.pixels.device)
        return kept_mask(self.kept, self.grid.patches)

    def masked(self) -> Tensor:
        """Pixels [B, C, H, W] with stopped patches painted black."""
        if self.kept is None:
            return self.pixels.clone()
        return unpatchify(patchify(self.pixels, self.grid) * self.mask().unsqueeze(2), self.grid)

    def select(self, indices: Tensor | slice) -> SyntheticImages:
        """The images at `indices`, without traces."""
        kept = None if self.kept is None else self.kept[indices]
        return SyntheticImages(
            *(self.pixels[indices], self.targets[indices], kept, self.patch_size, self.made),
            trajectory=None if self.trajectory is None else self.trajectory[indices],
            part=None if self.part is None else self.part[indices],
        )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, lossless, whole or not at all."""
        tensors = {"pixels": self.pixels, "targets": self.targets}
        tensors |= {f"trace.{name}": tensor for name, tensor in self.traces.items()}
        for name in ("kept", "trajectory", "part"):
            if getattr(self, name) is not None:
                tensors[name] = getattr(self, name)
        save_tensors(
            path, tensors, {"format": 1, "patch_size": list(self.patch_size), "made": dict(self.made)}
        )

    @classmethod
    def load(cls, path: str | Path) -> SyntheticImages:
        """Read what save wrote; InvalidImages with one line where the file is missing, damaged or foreign."""
        tensors, description = load_tensors(path, InvalidImages)
        try:
            traces = {
                name.removeprefix("trace."): t for name, t in tensors.items() if name.startswith("trace.")
            }
            return cls(
                tensors["pixels"],
                tensors["targets"],
                tensors.get("kept"),
                tuple(description["patch_size"]),
                description["made"],
                traces,
                tensors.get("trajectory"),
                tensors.get("part"),
            )
        except (KeyError, TypeError) as cause:
            raise InvalidImages(f"{path}: holds no synthetic images ({cause})") from cause
        except InvalidImages as cause:
            raise InvalidImages(f"{path}: {cause}") from cause

    def to(self, device: str | torch.device) -> SyntheticImages:
        """The same images on a device."""
        traces = {name: tensor.to(device) for name, tensor in self.traces.items()}
        kept, trajectory, part = (
            None if one is None else one.to(device) for one in (self.kept, self.trajectory, self.part)
        )
        moved = replace(self, pixels=self.pixels.to(device), targets=self.targets.to(device), kept=kept)
        return replace(moved, traces=traces, trajectory=trajectory, part=part)

    def as_dataset(self, masked: bool = False) -> TensorDataset:
        """Pairs (pixels [C, H, W] in [0, 1], target) for a DataLoader of torch; masked: stopped patches black."""
        return TensorDataset(self.masked() if masked else self.pixels, self.targets)

    def picture(self, columns: int = 8, masked: bool = True) -> Tensor:
        """One picture [C, h, w] of all images in a grid, in [0, 1], two white pixels between them."""
        return pictures.grid(self.masked() if masked else self.pixels, columns)

    def show(self, columns: int = 8, masked: bool = True) -> None:
        """Show them in a grid: in a notebook below the cell, else in the system's own viewer."""
        pictures.show(self.picture(columns, masked).cpu())

    def save_png(self, folder: str | Path, masked: bool = False) -> list[Path]:
        """Write one PNG an image into the folder, `<index>_class<target>.png`, 8 bits a channel; returns the paths."""
        return pictures.save_png(self, folder, masked)

    def _repr_png_(self) -> bytes | None:
        return pictures.png(self.select(slice(pictures.MOST)).picture().cpu()) if len(self) else None

    def _repr_html_(self) -> str | None:
        return pictures.html(self) if len(self) else None


def concatenate(sets: Iterable[SyntheticImages]) -> SyntheticImages:
    """Several sets as one, in their order, without traces; `made` holds how each of them was made, as "parts".

    Raises InvalidImages unless all are of one size and patch grid, with as many patches kept (or all dense).
    """
    sets = list(sets)
    if not sets:
        raise InvalidImages("there are no sets to concatenate: give at least one")
    for index, other in enumerate(sets):
        if not isinstance(other, SyntheticImages):
            raise InvalidImages(f"set {index} is a {type(other).__name__}; allowed: SyntheticImages")
        if _cut(other) != _cut(sets[0]):
            raise InvalidImages(
                f"set {index} is of {_cut(other)}, the first of {_cut(sets[0])}: they cannot be one set"
            )
    first = sets[0]
    trajectories, parts, start = [], [], 0
    for other in sets:
        if other.trajectory is not None and other.part is not None and len(other):
            trajectories.append(other.trajectory + start)
            parts.append(other.part)
            start = int(trajectories[-1].max()) + 1
    named = sum(map(len, parts)) == sum(map(len, sets)) > 0
    return SyntheticImages(
        torch.cat([other.pixels for other in sets]),
        torch.cat([other.targets for other in sets]),
        None if first.kept is None else torch.cat([other.kept for other in sets if other.kept is not None]),
        first.patch_size,
        {"parts": [dict(other.made) for other in sets]},
        trajectory=torch.cat(trajectories) if named else None,
        part=torch.cat(parts) if named else None,
    )


def _cut(images: SyntheticImages) -> str:
    size, patch = (" x ".join(map(str, sides)) for sides in (images.pixels.shape[1:], images.patch_size))
    kept = "all" if images.kept is None else images.kept.shape[1]
    return f"{size} pixels with {kept} patches of {patch}"

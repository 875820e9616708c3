"""SyntheticImages: what an inversion gives, and what quantization and transfer take.

Shapes: B = count images, C channels, H x W pixels, P patches, K kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smi.errors import InvalidImages
from smi.files import load_tensors, save_tensors
from smi.geometry import PatchGrid, kept_mask, patchify, unpatchify


@dataclass
class SyntheticImages:
    """Images with the patches that were inverted.

    pixels: float32 [B, C, H, W] in [0, 1]; stopped patches hold their last value.
    targets: int64 [B], the class each image was inverted for.
    kept: int64 [B, K], sorted patch indices, or None when dense.
    patch_size: (ph, pw) pixels; (0, 0) for a model without patches.
    made: how they were made (JSON values): recipe, seed, schedule, history of the loss, seconds, ...
    traces: what the run was asked to keep: "snapshot_pixels" [S, B, C, H, W] and "snapshot_mask" bool
        [S, B, P] at made["snapshots"]; "importance" [stops, B, P], NaN where a patch had stopped before.
    """

    pixels: Tensor
    targets: Tensor
    kept: Tensor | None = None
    patch_size: tuple[int, int] = (0, 0)
    made: Mapping[str, Any] = field(default_factory=dict)
    traces: Mapping[str, Tensor] = field(default_factory=dict)

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
        return SyntheticImages(self.pixels[indices], self.targets[indices], kept, self.patch_size, self.made)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, lossless, whole or not at all."""
        tensors = {"pixels": self.pixels, "targets": self.targets}
        tensors |= {f"trace.{name}": tensor for name, tensor in self.traces.items()}
        if self.kept is not None:
            tensors["kept"] = self.kept
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
            )
        except (KeyError, TypeError) as cause:
            raise InvalidImages(f"{path}: holds no synthetic images ({cause})") from cause
        except InvalidImages as cause:
            raise InvalidImages(f"{path}: {cause}") from cause

    def picture(self, columns: int = 8, masked: bool = True) -> Tensor:
        """One picture [C, h, w] of all images in a grid, in [0, 1], two white pixels between them."""
        from torchvision.utils import make_grid  # needed by people who look, not by those who invert

        return make_grid(self.masked() if masked else self.pixels, nrow=columns, padding=2, pad_value=1.0)

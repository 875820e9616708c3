"""The patch grid: patches of an image, masks, and where kept patches land after jitter (paper section 3).

Shapes: B images, C channels, H x W pixels, P patches of ph x pw pixels in a grid of R rows and Q columns,
K of them kept. Patch j lies in row j // Q, column j % Q; a patch vector is ordered channel, row, column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smi.errors import InvalidImages, InvalidSetting


@dataclass(frozen=True)
class PatchGrid:
    """How an image is cut into patches.

    rows, columns: patches along the height and the width.
    patch_height, patch_width: pixels of one patch.
    """

    rows: int
    columns: int
    patch_height: int
    patch_width: int

    @classmethod
    def of(cls, height: int, width: int, patch_height: int, patch_width: int) -> PatchGrid:
        """The grid of an H x W image; raises InvalidSetting where patches do not tile it."""
        if height % patch_height or width % patch_width:
            raise InvalidSetting(
                f"patches of {patch_height}x{patch_width} do not tile an image of {height}x{width} pixels"
            )
        return cls(height // patch_height, width // patch_width, patch_height, patch_width)

    @property
    def patches(self) -> int:
        return self.rows * self.columns

    @property
    def height(self) -> int:
        return self.rows * self.patch_height

    @property
    def width(self) -> int:
        return self.columns * self.patch_width

    def blocks(self, image: Tensor) -> Tensor:
        """[B, C, H, W] seen as [B, R, Q, C, ph, pw], without a copy where the image is contiguous."""
        channels = image.shape[1]
        cut = image.reshape(-1, channels, self.rows, self.patch_height, self.columns, self.patch_width)
        return cut.permute(0, 2, 4, 1, 3, 5)


def patchify(image: Tensor, grid: PatchGrid) -> Tensor:
    """[B, C, H, W] -> all patches [B, P, C*ph*pw]."""
    return grid.blocks(image).reshape(image.shape[0], grid.patches, -1)


def unpatchify(patches: Tensor, grid: PatchGrid) -> Tensor:
    """[B, P, C*ph*pw] -> [B, C, H, W]; the inverse of patchify."""
    batch = patches.shape[0]
    cut = patches.reshape(batch, grid.rows, grid.columns, -1, grid.patch_height, grid.patch_width)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, grid.height, grid.width)


def _rows_and_columns(kept: Tensor, grid: PatchGrid) -> tuple[Tensor, Tensor, Tensor]:
    """Advanced indices (image, row, column), each [B, K] or [B, 1], of the kept patches."""
    batch = torch.arange(kept.shape[0], device=kept.device).unsqueeze(1)
    rows = torch.div(kept, grid.columns, rounding_mode="floor")
    return batch, rows, kept - rows * grid.columns


class _TakePatches(torch.autograd.Function):
    """Gather without accumulation in the backward pass: kept indices are unique within an image."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, kept: Tensor, grid: PatchGrid) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.grid, ctx.shape = grid, image.shape
        return grid.blocks(image)[_rows_and_columns(kept, grid)].flatten(2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        image_gradient = gradient.new_zeros(ctx.shape)
        put_patches(image_gradient, kept, gradient, ctx.grid)
        return image_gradient, None, None


def take_patches(image: Tensor, kept: Tensor, grid: PatchGrid) -> Tensor:
    """The kept patches of an image, differentiable.

    image [B, C, H, W], kept int64 [B, K] with no index twice in a row -> [B, K, C*ph*pw]. Raises InvalidImages where
    these do not fit each other or the grid.
    """
    expected = (len(kept), grid.height, grid.width)
    if (len(image), *image.shape[2:]) != expected:
        raise InvalidImages(
            f"images are {list(image.shape)}, kept patches {list(kept.shape)} of a grid of "
            f"{grid.height} x {grid.width} pixels; they must fit each other"
        )
    return _TakePatches.apply(image, kept, grid)


def put_patches(image: Tensor, kept: Tensor, patches: Tensor, grid: PatchGrid) -> None:
    """Write patches [B, K, C*ph*pw] into image [B, C, H, W] in place; other pixels keep their bits."""
    batch, count = kept.shape
    cut = patches.reshape(batch, count, image.shape[1], grid.patch_height, grid.patch_width)
    channels = image.shape[1]
    blocks = image.view(batch, channels, grid.rows, grid.patch_height, grid.columns, grid.patch_width)
    blocks.permute(0, 2, 4, 1, 3, 5)[_rows_and_columns(kept, grid)] = cut


def pixel_index(kept: Tensor, grid: PatchGrid, channels: int) -> Tensor:
    """Where the pixels of kept patches int64 [B, K] lie in a flattened image: int64 [B, K * C*ph*pw].

    So `image.flatten(1).gather(1, index)` are the patches, and `scatter_` puts them back; no index comes twice.
    """
    return Jitter().pixel_index(kept, grid, channels)


def kept_mask(kept: Tensor, patches: int) -> Tensor:
    """kept int64 [B, K] -> bool [B, P], true where a patch is kept."""
    mask = torch.zeros(kept.shape[0], patches, dtype=torch.bool, device=kept.device)
    return mask.scatter_(1, kept, True)


@dataclass(frozen=True)
class Jitter:
    """One draw of the augmentation: roll by rows and columns (pixels, wrapping), then mirror left-right."""

    rows: int = 0
    columns: int = 0
    flip: bool = False

    def apply(self, image: Tensor) -> Tensor:
        """[B, C, H, W] -> the jittered image, differentiable."""
        if self.rows or self.columns:
            image = torch.roll(image, (self.rows, self.columns), dims=(2, 3))
        return image.flip(3) if self.flip else image

    def undo(self, image: Tensor) -> Tensor:
        """The inverse of apply, bit for bit."""
        image = image.flip(3) if self.flip else image
        return torch.roll(image, (-self.rows, -self.columns), dims=(2, 3))

    def remap(self, kept: Tensor, grid: PatchGrid) -> Tensor:
        """Where kept patches [B, K] lie in the jittered image: the nearest cell, halves rounded up.

        The order follows `kept`, so token k stays the same patch. A roll moves all patches alike, hence
        indices stay unique.
        """
        row_shift = _round_half_up(self.rows, grid.patch_height)
        column_shift = _round_half_up(self.columns, grid.patch_width)
        rows = torch.div(kept, grid.columns, rounding_mode="floor")
        columns = (kept - rows * grid.columns + column_shift) % grid.columns
        rows = (rows + row_shift) % grid.rows
        if self.flip:
            columns = grid.columns - 1 - columns
        return rows * grid.columns + columns

    def pixel_index(self, kept: Tensor, grid: PatchGrid, channels: int) -> Tensor:
        """Where the pixels of the kept patches' cells in the jittered image lie in the flattened image as stored.

        kept int64 [B, K] -> int64 [B, K * C*ph*pw]: the cells of `remap` are gathered without rolling the image.
        """
        cells = self.remap(kept, grid)
        top = torch.div(cells, grid.columns, rounding_mode="floor")
        left = cells - top * grid.columns
        rows = top.unsqueeze(2) * grid.patch_height + torch.arange(grid.patch_height, device=kept.device)
        columns = left.unsqueeze(2) * grid.patch_width + torch.arange(grid.patch_width, device=kept.device)
        if self.flip:
            columns = grid.width - 1 - columns
        rows, columns = (rows - self.rows) % grid.height, (columns - self.columns) % grid.width
        plane = rows.unsqueeze(3) * grid.width + columns.unsqueeze(2)  # [B, K, ph, pw]
        starts = torch.arange(channels, device=kept.device) * (grid.height * grid.width)
        return (starts.view(-1, 1, 1) + plane.unsqueeze(2)).flatten(1)


def _round_half_up(pixels: int, patch: int) -> int:
    """floor(pixels / patch + 1/2) in whole numbers, negative offsets too."""
    return (2 * pixels + patch) // (2 * patch)

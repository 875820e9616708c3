"""Position embeddings for another patch grid, as DINOv2 resamples its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from smi.errors import UnsupportedModel


def resampled(
    table: Tensor, old: tuple[int, int], new: tuple[int, int], prefix: int, antialias: bool
) -> Tensor:
    """Positions [1, prefix + rows * columns, D] of a grid (rows, columns) -> those of another, bicubic.

    Raises UnsupportedModel where the table is not of the old grid.
    """
    if table.shape[1] != prefix + old[0] * old[1]:
        raise UnsupportedModel(
            f"there are {table.shape[1]} positions for a grid of {old[0]} x {old[1]} patches and {prefix} other "
            "tokens: the weights are of another image or patch size"
        )
    if old == new:
        return table
    grid = table[:, prefix:].reshape(1, *old, -1).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, size=new, mode="bicubic", align_corners=False, antialias=antialias)
    return torch.cat([table[:, :prefix], grid.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)

"""How a picture is sized for a model, in 8 bits a channel, and back from these to [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from bench.errors import BenchError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Fit:
    """RGB picture of PIL -> uint8 [C, H, W]: resized and centre-cropped, as timm does it, to `size` (C, H, W).

    A model of one channel is shown grey pictures (ITU-R 601 luma). crop_pct: the share of the resized picture that the
    crop keeps."""

    size: tuple[int, int, int]
    interpolation: str
    crop_pct: float

    def __call__(self, picture: Image) -> Tensor:
        pixels = self._transform(picture if self.size[0] == 3 else picture.convert("L"))
        # torchvision's is a view of rows of colours, and products may round by the layout; by numpy, since torch would
        # start threads of its own in each thread that decodes
        return torch.from_numpy(numpy.ascontiguousarray(pixels.numpy()))

    @cached_property
    def _transform(self) -> Callable[[Image], Tensor]:
        from timm.data import create_transform

        return create_transform(
            input_size=self.size,
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
            normalize=False,
        )


def fit_transform(data_config: Mapping[str, Any], crop_pct: float = 0.875) -> Fit:
    """The fit for a model (`data_config`: input_size (C, H, W), interpolation; bicubic where none is named).

    BenchError for other numbers of channels than 1 and 3."""
    size = tuple(data_config["input_size"])
    if size[0] not in (1, 3):
        raise BenchError(f"the model takes pictures of {size[0]} channels; allowed: 3 (colour) or 1 (grey)")
    return Fit(size, data_config.get("interpolation", "bicubic"), crop_pct)


def unit_range(pixels: Tensor) -> Tensor:
    """uint8 pixels as float32 in [0, 1], the same bits on every device; floats as they are.

    The divisor is a tensor of the pixels' device: by a number CUDA multiplies with its reciprocal, which rounds other
    than the quotient does."""
    if pixels.dtype != torch.uint8:
        return pixels
    return pixels.float().div_(torch.full((), 255.0, device=pixels.device))

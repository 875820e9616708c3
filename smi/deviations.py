"""Where the published code of SMI does otherwise than the paper says, as named switches, all off by default.

What each does, and why the text is followed, is told in docs/reproducibility.md; the reference trajectory of the
published code (tests/golden) holds them. Shapes: B images, C channels, H x W pixels, P patches, K kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from smi.errors import InvalidSetting
from smi.images import SyntheticImages
from smi.stopping import most_important

if TYPE_CHECKING:
    from smi.stopping import Stopping
    from smi.vit import TokenModel

OF_INVERSION: Mapping[str, str] = {
    "whole_image_tv": "TV's gradient and Adam's momentum go on moving the pixels of stopped patches",
    "earlier_attention": "a stop at t ranks by the forward of t - 1; iterations t - 1 and t are not jittered",
    "final_mask_anew": "at the end int((P + 1) * (1 - r1) ... (1 - rn)) patches are chosen by the attention of a dense "
    "forward of the image as pixels in [0, 1], which nobody normalised",
    "eight_bit": "images are stored with 8 bits a channel, cut off, not rounded",
}
OF_CALIBRATION: Mapping[str, str] = {
    "keep_zero": "stopped patches are black, and pixels that are zero stay zero when they are normalised",
    "whole_stem": "patch embedding and its quantizers see all patches; the stopped ones leave before the first block",
}


def check(names: Iterable[str], allowed: Mapping[str, str]) -> frozenset[str]:
    """The names as a set; InvalidSetting for one that is not among `allowed`."""
    chosen = [names] if isinstance(names, str) else list(names)
    for name in chosen:
        if name not in allowed:
            raise InvalidSetting(f"unknown deviation {name!r}; allowed: {', '.join(sorted(allowed))}")
    return frozenset(chosen)


def finish(
    images: SyntheticImages, model: TokenModel, stopping: Stopping | None, deviations: frozenset[str]
) -> SyntheticImages:
    """Images at the end of an inversion, as the published code stores them."""
    if "final_mask_anew" in deviations and stopping is not None:
        images = replace(images, kept=_mask_anew(images, model, stopping))
    if "eight_bit" in deviations:
        images = replace(images, pixels=(images.pixels * 255).floor() / 255)
    return images


def normalise(pixels: Tensor, mean: Tensor, std: Tensor, keep_zero: bool = False) -> Tensor:
    """Pixels [B, C, H, W] in [0, 1] as the model takes them; keep_zero leaves those at zero that are zero."""
    normalised = (pixels - mean) / std
    return normalised.masked_fill(pixels == 0, 0.0) if keep_zero else normalised


@torch.no_grad()
def _mask_anew(images: SyntheticImages, model: TokenModel, stopping: Stopping) -> Tensor:
    """The published count multiplies tokens, CLS included, by all fractions at once: 47 of 196, not 46."""
    left = float(model.num_patches + 1)
    for fraction in stopping.drop:
        left *= 1 - fraction
    device = next(model.model.parameters()).device
    everything = torch.arange(model.num_patches).repeat(len(images), 1)
    attention = model.cls_attention(images.pixels.to(device)).cpu()
    return most_important(everything, attention, min(int(left), model.num_patches))[0]

"""Where the published code of SMI does otherwise than the paper says, as named switches, all off by default.

    images = smi.invert(model, recipe=smi.published.recipe("deepinversion"), stopping=smi.Stopping())

What each does, and why the text is followed, is told in docs/reproducibility.md; the reference trajectory of the
published code (tests/golden) holds them. Shapes: B images, C channels, H x W pixels, P patches, K kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from smi.adapters import Adapted
from smi.errors import InvalidSetting
from smi.execution import Passes
from smi.geometry import Jitter
from smi.images import SyntheticImages
from smi.loop import Loop
from smi.recipes import Recipe
from smi.recipes import recipe as find_recipe
from smi.state import InversionConfig, State
from smi.stopping import Stopping, most_important

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


# ---- inversion


@dataclass(frozen=True)
class PublishedRecipe(Recipe):
    """A recipe that follows the published code where it departs from the paper: in `deviations`, of OF_INVERSION."""

    deviations: tuple[str, ...] = tuple(OF_INVERSION)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "deviations", tuple(sorted(check(self.deviations, OF_INVERSION))))


def recipe(
    name: str | Recipe, deviations: Iterable[str] = tuple(OF_INVERSION), **overrides: Any
) -> PublishedRecipe:
    """As `smi.recipe`, with the published code's deviations from the paper: all, or the names given (OF_INVERSION)."""
    by_the_text = find_recipe(name, **overrides)
    values = {field.name: getattr(by_the_text, field.name) for field in fields(Recipe)}
    return PublishedRecipe(**values, deviations=tuple(check(deviations, OF_INVERSION)))


def deviations_of(recipe: Recipe) -> list[str]:
    """Names of the recipe's deviations, sorted; none where it follows the paper's text."""
    return list(recipe.deviations) if isinstance(recipe, PublishedRecipe) else []


def loop_of(model: Adapted, config: InversionConfig, passes: Passes) -> Loop:
    """The loop that does what the recipe asks for."""
    return (PublishedLoop if deviations_of(config.recipe) else Loop)(model, config, passes)


@dataclass(frozen=True)
class PublishedLoop(Loop):
    """The inversion loop with its recipe's deviations."""

    def _does(self, deviation: str) -> bool:
        return deviation in deviations_of(self.config.recipe)

    def iterate(self, state: State) -> None:
        """As by the text; "earlier_attention" ranks for a stop one iteration ahead of it."""
        if self._does("earlier_attention") and self.config.prunes_at(state.iteration + 1):
            state.extra["importance"] = super().importance(state)
        super().iterate(state)

    def importance(self, state: State) -> Tensor:
        """What was ranked ahead, or as by the text."""
        return state.extra.pop("importance") if "importance" in state.extra else super().importance(state)

    def draw_jitter(self, state: State) -> Jitter:
        """As by the text; none in the iterations beside a stop with "earlier_attention"."""
        drawn = super().draw_jitter(state)
        beside = self.config.prunes_at(state.iteration) or self.config.prunes_at(state.iteration + 1)
        return Jitter() if beside and self._does("earlier_attention") else drawn

    def narrow(self, state: State, remaining: Tensor, positions: Tensor) -> None:
        """As by the text; with "whole_image_tv" Adam goes on moving all pixels."""
        if self._does("whole_image_tv"):
            state.hold(remaining, self.model.grid)
        else:
            super().narrow(state, remaining, positions)

    def finish(self, images: SyntheticImages) -> SyntheticImages:
        """The images as the published code stores them."""
        if self._does("final_mask_anew") and self.config.stopping is not None:
            assert isinstance(self.config.stopping, Stopping)  # a Rebirth takes no deviations
            images = replace(images, kept=final_mask(images, self.model, self.config.stopping))
        if self._does("eight_bit"):
            images = replace(images, pixels=(images.pixels * 255).floor() / 255)
        return images


@torch.no_grad()
def final_mask(images: SyntheticImages, model: Adapted, stopping: Stopping) -> Tensor:
    """Kept sets [B, K] of "final_mask_anew": the published count multiplies tokens, CLS included, by all fractions at
    once: 47 of 196, not 46."""
    left = float(model.num_patches + 1)
    for fraction in stopping.fractions:
        left *= 1 - fraction
    device = next(model.model.parameters()).device
    everything = torch.arange(model.num_patches, device="cpu").repeat(len(images), 1)
    attention = model.cls_attention(images.pixels.to(device)).cpu()
    return most_important(everything, attention, min(int(left), model.num_patches))[0]


# ---- calibration


def normalise(pixels: Tensor, mean: Tensor, std: Tensor, keep_zero: bool = False) -> Tensor:
    """Pixels [B, C, H, W] in [0, 1] as the model takes them; keep_zero leaves those at zero that are zero."""
    normalised = (pixels - mean) / std
    return normalised.masked_fill(pixels == 0, 0.0) if keep_zero else normalised

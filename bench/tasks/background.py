"""Kind "background": what a model sees of an image's class in those patches alone that attention leaves out.

The paper's second cause of inefficiency, which it calls hallucination, is that a dense inversion writes what a class is
seen with into the background, too. Here that is measured: the background of an image is the share of its patches to
which CLS attends least in the finished image, those that sparse inversion stopped before all others; the model is fed
them alone, as many chosen at random, the rest of the image, and all of it.

inputs: teacher, images. settings: share, of the patches that are background; seed, of what is chosen at random.
Shapes: B images, P patches, n of them background.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import smi
from bench import models
from bench.engine.task import Job
from bench.tasks.images import FILE
from smi.geometry import kept_mask
from smi.vit import TokenModel, adapt, frozen, normalisation

BATCH = 64  # images that the model looks at at a time
PARTS = ("background", "chance", "rest", "whole")


@torch.no_grad()
def run(job: Job) -> dict[str, Any]:
    """Metrics, in %: for each of PARTS <part>_probability, the target's mean softmax, and <part>_top1, the share of
    images whose target is the greatest logit; background_over_chance, of the probabilities; and patches, n."""
    settings = job.task.settings
    model, _ = models.load(job.inputs["teacher"], job.device)
    images = smi.SyntheticImages.load(job.inputs["images"] / FILE)
    generator = torch.Generator().manual_seed(settings["seed"])
    tokens = adapt(model)
    count = background_patches(settings["share"], tokens.num_patches)
    mean, std = normalisation(model)
    found: dict[str, list[Tensor]] = {part: [] for part in PARTS}
    with frozen(model):
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            pictures = (part.pixels.to(job.device) - mean) / std
            sets = patch_sets(tokens, pictures, part.kept, count, generator)
            for name, chosen in sets.items():
                found[name].append(tokens(pictures, chosen).float().softmax(1).cpu())
    metrics: dict[str, Any] = {"patches": count}
    for name, parts in found.items():
        chances = torch.cat(parts)
        metrics[f"{name}_probability"] = 100 * chances.gather(1, images.targets[:, None]).mean().item()
        metrics[f"{name}_top1"] = 100 * (chances.argmax(1) == images.targets).float().mean().item()
    metrics["background_over_chance"] = metrics["background_probability"] - metrics["chance_probability"]
    return metrics


def background_patches(share: float, patches: int) -> int:
    """How many of the patches are background: at least one, and not all."""
    return min(max(1, round(share * patches)), patches - 1)


def patch_sets(
    tokens: TokenModel, pictures: Tensor, kept: Tensor | None, count: int, generator: torch.Generator
) -> dict[str, Tensor | None]:
    """The patches of each of PARTS, sorted int64 [B, n] (None: all), of normalised pictures.

    Patches are ranked by CLS attention in the picture as it is, fed whole; those that an inversion has stopped (not in
    `kept`) come below all that it kept."""
    attention = tokens.cls_attention(pictures)
    if kept is not None:
        attention = attention + kept_mask(kept.to(attention.device), tokens.num_patches)
    order = attention.argsort(dim=1)
    drawn = torch.rand(attention.shape, generator=generator).argsort(dim=1)[:, :count].to(order.device)
    chosen = {"background": order[:, :count], "chance": drawn, "rest": order[:, count:]}
    return {**{name: patches.sort(dim=1).values for name, patches in chosen.items()}, "whole": None}

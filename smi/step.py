"""The loss of one iteration and its gradient to the pixels: what an inversion spends its time on.

The objective is taken apart. Terms of the pixels alone (total variation, norms) are computed once, on the images as
they are. Terms of what the model says go through the model, on the kept patches' pixels gathered straight from the
image as stored, whole or in micro-batches, and their gradient is added in place. Weights are frozen.

Shapes: B images, C channels, H x W pixels, K kept patches.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smi.geometry import Jitter
from smi.objectives import Objective, Step

if TYPE_CHECKING:
    from smi.loop import Batch, Plan


@torch.enable_grad()
def loss_and_gradient(model: Any, plan: Plan, batch: Batch, jitter: Jitter) -> tuple[Tensor, Tensor]:
    """(objective, its gradient to the whole image [B, C, H, W]), without touching the batch.

    In micro-batches (plan.micro_batch) the result is that of one batch up to rounding: cross-entropy is a mean over
    images, so each part counts by its share, and the pixels' terms are norms over the batch that are not split.
    """
    of_model, of_pixels = plan.recipe.objective.of_model, plan.recipe.objective.of_pixels
    gathered = batch.kept is not None and plan.student is None
    image, view = batch.image.detach().requires_grad_(), None
    if (of_model and not gathered) or (of_pixels and of_pixels.reads_view):
        view = jitter.apply(image)
    loss = gradient = None
    if of_pixels is not None:
        loss = of_pixels(Step(image=image, view=view, chance=batch.chance))
        (gradient,) = torch.autograd.grad(loss, image)
        gradient = gradient.contiguous()  # a term of one's own may hand out an expanded or permuted one
        loss = loss.detach()
    if of_model is None:
        return loss, gradient
    gradient = torch.zeros_like(batch.image) if gradient is None else gradient
    run = partial(_through_model, model, plan, of_model)
    count = len(image)
    for start in range(0, count, plan.micro_batch or count):
        part = slice(start, min(start + (plan.micro_batch or count), count))
        share = (part.stop - part.start) / count
        kept = None if batch.kept is None else batch.kept[part]
        cells = None if kept is None else jitter.remap(kept, model.grid)
        if gathered:
            places = jitter.pixel_index(kept, model.grid, image.shape[1])
            pixels = batch.image[part].flatten(1).gather(1, places).unflatten(1, (kept.shape[1], -1))
            value, change = plan.execute(run, pixels, cells, batch.targets[part], share)
            gradient[part].flatten(1).scatter_add_(1, places, change.flatten(1))
        else:
            pixels = view[part].detach()
            value, change = plan.execute(run, pixels, cells, batch.targets[part], share)
            gradient[part].add_(jitter.undo(change))
        loss = value if loss is None else loss + value
    return loss, gradient


def _through_model(
    model: Any,
    plan: Plan,
    objective: Objective,
    pixels: Tensor,
    cells: Tensor | None,
    targets: Tensor,
    share: float,
) -> tuple[Tensor, Tensor]:
    """(share of the objective, its gradient to `pixels`): a jittered image, or kept patches' pixels [B, K, C*ph*pw]."""
    pixels.requires_grad_()
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
        seen = (plan.observer or model).observe(pixels, cells, objective.needs)
        if plan.student is not None:
            seen["student_logits"] = plan.student(pixels)
    loss = objective(Step(image=pixels, view=pixels, targets=targets, **seen))
    loss = loss if share == 1 else loss * share
    (gradient,) = torch.autograd.grad(loss, pixels)
    return loss.detach(), gradient

"""Model inversion the plain, published way: the other side of every speed ratio, and an oracle for the engine.

As the published code of DeepInversion on ViTs, SMI and PSAQ-ViT does it: gradients of all weights are computed,
every block materialises its attention map and all maps are kept, all patches are embedded by the convolution and
the kept ones gathered afterwards, Adam holds and moves the whole image, TV is four differences by autograd, patch
similarity is broadcast to P x P x d, and the best loss so far is asked for in every iteration.

Shapes: B images, C channels, H x W pixels, P patches, K kept, d head width, S samples, G points of the grid.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smi.errors import UnsupportedModel
from smi.geometry import Jitter
from smi.objectives import PSAQ_ELEMENTS
from smi.recipes import Recipe
from smi.vit import adapt, normalisation

BANDWIDTH, GRID_POINTS = 0.01, 10  # of PSAQ-ViT's density of similarities


class PublishedInversion:
    """One batch of images under optimisation. The model is copied: its weights collect gradients nobody uses.

    image: [B, C, H, W], normalised; targets: int64 [B]; kept: int64 [B, K], fixed, or None when dense.
    chance: places PSAQ-ViT's TV target in its range, as in smi.objectives.Step.
    Without stops the images are the engine's. With kept patches the stopped ones go on moving by TV and by Adam's
    momentum, which the engine calls the deviation "whole_image_tv".
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        image: Tensor,
        targets: Tensor,
        kept: Tensor | None = None,
        chance: float = 0.0,
    ) -> None:
        self.grid = adapt(model).grid
        self.model = copy.deepcopy(model).eval().requires_grad_(True)
        for block in self.model.blocks:
            block.attn.fused_attn = False
        self.recipe, self.targets, self.kept, self.chance = recipe, targets, kept, chance
        self.image = image.detach().clone().requires_grad_(True)
        self.optimizer = torch.optim.Adam([self.image], lr=recipe.learning_rate, betas=recipe.betas)
        mean, std = (value.to(image) for value in normalisation(model))
        self.low, self.high = (0 - mean) / std, (1 - mean) / std
        self.best = math.inf
        self.maps: list[Tensor] = []  # attention of every block, [B, h, N, N], of the latest forward
        self.outputs: list[Tensor] = []  # attention output of every block, [B, N, h * d]
        for block in self.model.blocks:
            block.attn.attn_drop.register_forward_hook(lambda _, inputs, output: self.maps.append(output))
            block.attn.proj.register_forward_pre_hook(lambda _, inputs: self.outputs.append(inputs[0]))

    def forward(self, view: Tensor, cells: Tensor | None) -> Tensor:
        """Logits of the jittered image [B, C, H, W] through the tokens of `cells` [B, K], after embedding all."""
        model, prefix = self.model, self.model.num_prefix_tokens
        self.maps.clear()
        self.outputs.clear()
        x = model.norm_pre(model._pos_embed(model.patch_embed(view)))
        if cells is not None:
            always = torch.arange(prefix, device=cells.device).expand(len(cells), prefix)
            tokens = torch.cat([always, cells + prefix], dim=1)
            x = x.gather(1, tokens.unsqueeze(2).expand(-1, -1, x.shape[2]))
        for block in model.blocks:
            x = block(x)
        return model.forward_head(model.norm(x))

    def loss(self, jitter: Jitter) -> Tensor:
        """The recipe's objective on the jittered image, a scalar."""
        view = self.image
        if jitter.rows or jitter.columns:
            view = torch.roll(view, shifts=(jitter.rows, jitter.columns), dims=(2, 3))
        if jitter.flip:
            view = torch.flip(view, dims=(3,))
        cells = None if self.kept is None else jitter.remap(self.kept, self.grid)
        logits = self.forward(view, cells)
        total = torch.zeros((), device=view.device, dtype=view.dtype)
        for term in self.recipe.objective.terms:
            total = total + term.weight * self._term(term.name, dict(term.params), logits, view)
        return total

    def _term(self, name: str, params: dict[str, Any], logits: Tensor, view: Tensor) -> Tensor:
        shown = (
            view if params.get("on", "view" if name == "tv_l2_target" else "image") == "view" else self.image
        )
        if name == "cross_entropy":
            return F.cross_entropy(logits, self.targets)
        if name == "tv_l2":
            return total_variation(shown)
        if name == "tv_l2_target":
            low, high = params.get("low", 2500.0), params.get("high", 3000.0)
            scale = math.sqrt(view.numel() / PSAQ_ELEMENTS)
            return torch.abs(total_variation(shown) - (low + self.chance * (high - low)) * scale)
        if name == "patch_similarity_entropy":
            heads, prefix = self.model.blocks[-1].attn.num_heads, self.model.num_prefix_tokens
            outputs = [output.unflatten(2, (heads, -1)).mean(dim=2)[:, prefix:] for output in self.outputs]
            return -sum(similarity_entropy(output) for output in outputs)
        raise UnsupportedModel(f"the published way of the term {name} is not written down here")

    def loss_and_gradient(self, jitter: Jitter) -> tuple[Tensor, Tensor]:
        """(loss, its gradient to the whole image [B, C, H, W]); the weights' gradients are computed as well."""
        self.optimizer.zero_grad()
        self.model.zero_grad()
        loss = self.loss(jitter)
        loss.backward()
        return loss.detach(), self.image.grad

    def step(self, jitter: Jitter, iteration: int = 0) -> Tensor:
        """One iteration on the whole image; returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate_at(iteration)
        loss, _ = self.loss_and_gradient(jitter)
        self.optimizer.step()
        with torch.no_grad():
            for channel in range(self.image.shape[1]):
                low, high = self.low[0, channel].item(), self.high[0, channel].item()
                self.image[:, channel] = torch.clamp(self.image[:, channel], low, high)
        self.best = min(self.best, loss.item())
        return loss


def total_variation(image: Tensor) -> Tensor:
    """TV_l2: right, down and both diagonals, each the norm of a difference image; [B, C, H, W] -> scalar."""
    right = image[:, :, :, :-1] - image[:, :, :, 1:]
    down = image[:, :, :-1, :] - image[:, :, 1:, :]
    diagonal = image[:, :, :-1, :-1] - image[:, :, 1:, 1:]
    other = image[:, :, 1:, :-1] - image[:, :, :-1, 1:]
    return torch.norm(right) + torch.norm(down) + torch.norm(diagonal) + torch.norm(other)


def similarity_entropy(output: Tensor) -> Tensor:
    """Entropy of one block's patch similarities as published: [B, P, d] broadcast to [B, P, P, d] -> scalar."""
    similarity = torch.cosine_similarity(output.unsqueeze(1), output.unsqueeze(2), dim=3)  # [B, P, P]
    samples = similarity.flatten(1)
    low, high = similarity.min().item(), similarity.max().item()
    grid = torch.linspace(low, high, GRID_POINTS, device=output.device, dtype=output.dtype).repeat(
        len(output), 1
    )
    distance = (grid.unsqueeze(2) - samples.unsqueeze(1)) / BANDWIDTH  # [B, G, S]
    kernel = torch.exp(-0.5 * distance**2) / (math.sqrt(2 * math.pi) * BANDWIDTH)
    density = kernel.mean(dim=2) + 1e-4
    return torch.trapezoid(-density * torch.log(density), grid, dim=1).mean()

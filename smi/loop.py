"""The optimisation of one batch: jitter, forward on kept patches, loss, Adam, clamp; stops in between.

Shapes: B images, C channels, H x W pixels, P patches, K kept, T iterations. The optimised variable is the kept
patches [B, K, C*ph*pw], laid on a canvas whose other pixels nothing touches; when dense it is the image itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from smi.clock import Clock
from smi.engine import direct
from smi.errors import Interrupted, NonFiniteLoss
from smi.geometry import Jitter, PatchGrid, kept_mask, pixel_index, take_patches
from smi.recipes import Recipe
from smi.step import loss_and_gradient
from smi.stopping import Score, Stopping, most_important

REPORT_SECONDS = 0.5  # between two progress reports; each one waits for the device


@dataclass(frozen=True)
class Plan:
    """What all batches of one inversion share."""

    recipe: Recipe
    stopping: Stopping | None
    score: Score
    precision: str
    snapshots: tuple[int, ...]
    deviations: frozenset[str] = frozenset()  # of smi.deviations
    student: Callable[[Tensor], Tensor] | None = None  # of the adaptive term: view [B, C, H, W] -> logits
    micro_batch: int | None = None  # images that go through the model together; None is the whole batch
    observer: Any = None  # of losses, if it is not the model that scores: smi.engine.observer
    execute: Callable[..., tuple[Tensor, Tensor]] = direct  # how a pass through it is run: smi.engine

    def stops_at(self, iteration: int) -> bool:
        """Do patches stop before this iteration?"""
        return self.stopping is not None and iteration in self.stopping.at


@dataclass
class Batch:
    """The whole state of one batch between two iterations.

    image: [B, C, H, W], normalised; kept: int64 [B, K], None before the first stop; targets: int64 [B].
    optimizer: Adam over one tensor; losses: float32 [T], filled up to `iteration`.
    """

    image: Tensor
    targets: Tensor
    optimizer: torch.optim.Adam
    losses: Tensor
    jitter_generator: torch.Generator
    score_generator: torch.Generator
    chance: float
    kept: Tensor | None = None
    pixels: Tensor | None = None  # where those patches' pixels lie, see smi.geometry.pixel_index
    scores: Tensor | None = None  # [B, K], where the next stop's were taken early
    iteration: int = 0
    stages: list[dict[str, Any]] = field(default_factory=list)
    importance: list[Tensor] = field(default_factory=list)
    snapshots: dict[int, Tensor] = field(default_factory=dict)
    masks: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def start(cls, model, plan: Plan, size: int, targets: Tensor | None, seeds, device) -> Batch:
        """Gaussian noise and uniform targets, drawn on the CPU so that they do not depend on the device."""
        generator = torch.Generator().manual_seed(seeds[0])
        noise = torch.randn(size, model.channels, model.grid.height, model.grid.width, generator=generator)
        drawn = torch.randint(model.classes, (size,), generator=generator)
        chance = float(torch.rand((), generator=generator))
        image = noise.to(device)
        return cls(
            image=image,
            targets=(drawn if targets is None else targets).to(device),
            optimizer=_adam(image, plan.recipe),
            losses=torch.zeros(plan.recipe.iterations, device=device),
            jitter_generator=generator,
            score_generator=torch.Generator().manual_seed(seeds[1]),
            chance=chance,
        )

    @property
    def variable(self) -> Tensor:
        """What Adam moves: kept patches [B, K, C*ph*pw] after a stop, else the image itself."""
        return self.optimizer.param_groups[0]["params"][0]

    def hold(self, kept: Tensor, grid: PatchGrid) -> None:
        """From here on these patches are the ones still in."""
        self.kept, self.pixels = kept, pixel_index(kept, grid, self.image.shape[1])

    def to_saved(self, index: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors named `<index>.<what>`, JSON figures) from which `from_saved` continues to the same bits."""
        tensors = {
            "image": self.image,
            "targets": self.targets,
            "losses": self.losses,
            "jitter_generator": self.jitter_generator.get_state(),
            "score_generator": self.score_generator.get_state(),
            **{f"adam.{name}": t for name, t in self.optimizer.state[self.variable].items()},
            **{f"importance.{stop}": t for stop, t in enumerate(self.importance)},
            **{f"snapshot.{t}": image for t, image in self.snapshots.items()},
            **{f"mask.{t}": mask for t, mask in self.masks.items()},
        }
        if self.kept is not None:
            tensors["kept"] = self.kept
        if self.variable is not self.image:
            tensors["variable"] = self.variable
        if self.scores is not None:
            tensors["scores"] = self.scores
        group = {k: v for k, v in self.optimizer.param_groups[0].items() if k in ("lr", "betas", "eps")}
        figures = {"iteration": self.iteration, "chance": self.chance, "stages": self.stages, "adam": group}
        return {f"{index}.{name}": tensor for name, tensor in tensors.items()}, figures

    @classmethod
    def from_saved(
        cls, index: int, tensors: Mapping[str, Tensor], figures: Mapping[str, Any], device
    ) -> Batch:
        """The state that `to_saved` described, on a device."""
        start = f"{index}."
        own = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}

        def numbered(prefix: str) -> dict[int, Tensor]:
            return {int(n.removeprefix(prefix)): t for n, t in own.items() if n.startswith(prefix)}

        image = own["image"].to(device)
        variable = own["variable"].to(device) if "variable" in own else image
        optimizer = _adam_over(variable, **figures["adam"])
        adam = {name.removeprefix("adam."): t for name, t in own.items() if name.startswith("adam.")}
        if adam:
            optimizer.state[variable] = {name: tensor.to(device) for name, tensor in adam.items()}
        generators = []
        for name in ("jitter_generator", "score_generator"):
            generators.append(torch.Generator())
            generators[-1].set_state(own[name])
        return cls(
            image=image,
            targets=own["targets"].to(device),
            optimizer=optimizer,
            losses=own["losses"].to(device),
            jitter_generator=generators[0],
            score_generator=generators[1],
            chance=figures["chance"],
            kept=own["kept"].to(device) if "kept" in own else None,
            scores=own["scores"].to(device) if "scores" in own else None,
            iteration=figures["iteration"],
            stages=list(figures["stages"]),
            importance=list(dict(sorted(numbered("importance.").items())).values()),
            snapshots=numbered("snapshot."),
            masks=numbered("mask."),
        )


def _adam_over(
    variable: Tensor, lr: float, betas: tuple[float, float], eps: float = 1e-8
) -> torch.optim.Adam:
    fused = variable.device.type in ("cpu", "cuda")
    return torch.optim.Adam([variable], lr=lr, betas=tuple(betas), eps=eps, fused=fused)


def _adam(variable: Tensor, recipe: Recipe) -> torch.optim.Adam:
    return _adam_over(variable, recipe.learning_rate, recipe.betas)


def run_batch(
    model,
    plan: Plan,
    batch: Batch,
    statistics: tuple[Tensor, Tensor],
    due: Callable[[], bool],
    save: Callable[[], bool],
    report: Callable[[int, Mapping[str, float]], None],
    should_stop: Callable[[], bool],
) -> None:
    """Take a batch from where it is to the end of its recipe.

    due, save: is a checkpoint due, and write one (False: there is no file to write). report: called with the
    iterations done and the figures to show.
    Raises NonFiniteLoss, and Interrupted (after saving) when should_stop says so.
    """
    recipe, stopping = plan.recipe, plan.stopping
    mean, std = statistics
    if batch.kept is not None:  # resumed
        batch.hold(batch.kept, model.grid)
    low, high = (0 - mean) / std, (1 - mean) / std  # [1, C, 1, 1]: what valid pixels become
    cut_at = dict(zip(stopping.at, stopping.kept_counts(model.num_patches), strict=True)) if stopping else {}
    clock = Clock(batch, model.num_patches)
    reported = time.monotonic()
    for iteration in range(batch.iteration, recipe.iterations):
        if should_stop():
            clock.stop()
            kept = "; the state is saved" if save() else ""
            raise Interrupted(f"stopped at iteration {iteration} of {recipe.iterations}{kept}")
        if iteration in cut_at:
            _check_finite(batch, recipe)
            stop_patches(model, plan, batch, cut_at[iteration])
            clock.restart()
        _snapshot(plan, batch, model.num_patches)
        if "earlier_attention" in plan.deviations and plan.stops_at(iteration + 1):
            batch.scores = _score(model, plan, batch)
        iterate(model, plan, batch, low, high)
        batch.iteration = iteration + 1
        if time.monotonic() - reported >= REPORT_SECONDS:
            _check_finite(batch, recipe)
            report(batch.iteration, {"loss": float(batch.losses[iteration])})
            reported = time.monotonic()
        if due():
            clock.restart()
            save()
    _check_finite(batch, recipe)
    _snapshot(plan, batch, model.num_patches)
    clock.stop()
    report(batch.iteration, {"loss": float(batch.losses[-1])})


@torch.no_grad()
def iterate(model, plan: Plan, batch: Batch, low: Tensor, high: Tensor) -> None:
    """One step of Adam on the kept pixels. low, high: [1, C, 1, 1], the range of valid pixels, normalised."""
    recipe, image = plan.recipe, batch.image
    for group in batch.optimizer.param_groups:
        group["lr"] = recipe.learning_rate_at(batch.iteration)
    jitter = recipe.draw_jitter(batch.iteration, image.shape[2], image.shape[3], batch.jitter_generator)
    if "earlier_attention" in plan.deviations:
        beside_a_stop = plan.stops_at(batch.iteration) or plan.stops_at(batch.iteration + 1)
        jitter = Jitter() if beside_a_stop else jitter
    batch.losses[batch.iteration], gradient = loss_and_gradient(model, plan, batch, jitter)
    variable = batch.variable
    if variable is image:
        variable.grad = gradient
    else:
        variable.grad = gradient.flatten(1).gather(1, batch.pixels).view_as(variable)
    batch.optimizer.step()
    variable.grad = None
    if variable is image:
        image.clamp_(low, high)
    else:
        channels = variable.view(*variable.shape[:2], image.shape[1], -1)  # [B, K, C, ph*pw]
        channels.clamp_(low.view(1, 1, -1, 1), high.view(1, 1, -1, 1))
        image.view(len(image), -1).scatter_(1, batch.pixels, variable.flatten(1))


@torch.no_grad()
def stop_patches(model, plan: Plan, batch: Batch, count: int) -> None:
    """Rank the patches still in on the un-jittered image, keep `count` of each image, cut Adam's state along."""
    kept = _kept_or_all(model, batch)
    scores = _score(model, plan, batch) if batch.scores is None else batch.scores
    batch.scores = None
    remaining, positions = most_important(kept, scores, count)
    ranked = torch.full((len(kept), model.num_patches), float("nan"))
    batch.importance.append(ranked.scatter_(1, kept.cpu(), scores.float().cpu()))
    if "whole_image_tv" not in plan.deviations:
        batch.optimizer = _cut_optimizer(model, plan, batch, remaining, positions)
    batch.hold(remaining, model.grid)


def _kept_or_all(model, batch: Batch) -> Tensor:
    """Indices of the patches still in, [B, K]; all P before the first stop."""
    if batch.kept is not None:
        return batch.kept
    return torch.arange(model.num_patches, device=batch.image.device).repeat(len(batch.image), 1)


@torch.no_grad()
def _score(model, plan: Plan, batch: Batch) -> Tensor:
    """Importance of the patches still in, [B, K] in the score's own dtype, on the un-jittered image."""
    return plan.score(model, batch.image.clone(), _kept_or_all(model, batch), batch.score_generator)


def _cut_optimizer(model, plan: Plan, batch: Batch, remaining: Tensor, positions: Tensor) -> torch.optim.Adam:
    """Adam over the remaining patches alone, its moments cut along; `positions` are theirs among those kept."""
    state = batch.optimizer.state[batch.variable]
    variable = take_patches(batch.image, remaining, model.grid)
    optimizer = _adam(variable, plan.recipe)
    if state:
        moments = {}
        for name in ("exp_avg", "exp_avg_sq"):
            if batch.kept is None:
                moments[name] = take_patches(state[name], remaining, model.grid)
            else:
                moments[name] = state[name].take_along_dim(positions.unsqueeze(2), dim=1)
        optimizer.state[variable] = {"step": state["step"], **moments}
    return optimizer


def _snapshot(plan: Plan, batch: Batch, patches: int) -> None:
    if batch.iteration in plan.snapshots and batch.iteration not in batch.snapshots:
        every = torch.ones(len(batch.image), patches, dtype=torch.bool)
        batch.snapshots[batch.iteration] = batch.image.detach().cpu().clone()
        batch.masks[batch.iteration] = every if batch.kept is None else kept_mask(batch.kept.cpu(), patches)


def _check_finite(batch: Batch, recipe: Recipe) -> None:
    broken = (~torch.isfinite(batch.losses[: batch.iteration])).nonzero()
    if len(broken):
        raise NonFiniteLoss(
            f"the loss is {float(batch.losses[broken[0, 0]])} at iteration {int(broken[0, 0])} "
            f"(recipe {recipe.name}, learning rate {recipe.learning_rate:g}): lower the learning rate, "
            "or check the model's weights"
        )

"""The optimisation of one batch: jitter, forward on kept patches, loss, Adam, clamp; stops in between.

One loss is followed in three hops: `Loop.iterate` asks `Loop.gradient`, which calls the terms of smi/objectives.py.
Terms that read the pixels alone (total variation, norms) are computed once, on the images as they are. Terms that
read the model's output go through the model, on the kept patches' pixels gathered straight from the image as
stored, whole or in micro-batches, and their gradient is added in place. Weights are frozen.

Shapes: B images, C channels, H x W pixels, P patches of ph x pw pixels, K kept, T iterations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from smi.adapters import Adapted
from smi.device import synchronise
from smi.errors import Interrupted, NonFiniteLoss
from smi.execution import Passes
from smi.geometry import Jitter
from smi.images import SyntheticImages
from smi.objectives import Objective, Step
from smi.rebirth import Rebirth
from smi.state import InversionConfig, State, every_patch
from smi.stopping import find_score
from smi.vit import normalisation

REPORT_SECONDS = 0.5  # between two progress reports; each one waits for the device

Report = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Loop:
    """Takes batches from where they are to the end of their recipe, by the paper's text.

    model: ranks patches, and says how images are cut and normalised. passes: how the model's part of an iteration is
    run (smi/execution.py). Other kinds of loops override single methods, as smi/published.py does.
    """

    model: Adapted
    config: InversionConfig
    passes: Passes

    @cached_property
    def valid_range(self) -> tuple[Tensor, Tensor]:
        """What pixels of 0 and of 1 become when they are normalised, [1, C, 1, 1] each."""
        model = self.model.model
        mean, std = (value.to(next(model.parameters()).dtype) for value in normalisation(model))
        return (0 - mean) / std, (1 - mean) / std

    def run(
        self,
        state: State,
        due: Callable[[], bool],
        save: Callable[[], bool],
        report: Report,
        should_stop: Callable[[], bool],
    ) -> None:
        """Take a batch from where it is to the end of its recipe.

        due, save: is a checkpoint due, and write one (False: there is no file to write). report: called with the
        iterations done and the figures to show.
        Raises NonFiniteLoss, and Interrupted (after saving) when should_stop says so; what should_stop, report and
        save raise for Ctrl-C goes on after saving too.
        """
        recipe, stopping, patches = self.config.recipe, self.config.stopping, self.model.num_patches
        counts = {} if stopping is None else stopping.rankings(recipe.iterations, patches)
        clock = Clock(state, patches)
        reported, at_work = time.monotonic(), False

        def leave() -> str:
            clock.stop()
            kept = "; the state is saved" if save() else ""
            return f"stopped at iteration {state.iteration} of {recipe.iterations}{kept}"

        try:
            for iteration in range(state.iteration, recipe.iterations):
                if should_stop():
                    raise Interrupted(leave())
                at_work = True  # between here and its end no state of this iteration is one to go on from
                if iteration in counts:
                    self._check_finite(state)
                    self.prune(state, counts[iteration])
                    clock.restart()
                self._snapshot(state)
                self.iterate(state)
                state.iteration, at_work = iteration + 1, False
                last = state.iteration == recipe.iterations  # reported below
                if not last and time.monotonic() - reported >= REPORT_SECONDS:
                    self._check_finite(state)
                    report(state.iteration, self._figures(state))
                    reported = time.monotonic()
                if due():
                    clock.stop()
                    save()
                    clock.start()
        except KeyboardInterrupt:
            if at_work:
                raise
            raise KeyboardInterrupt(f"{leave()}: call it again with the same arguments") from None
        self._check_finite(state)
        self._snapshot(state)
        clock.stop()
        report(state.iteration, self._figures(state))

    @torch.no_grad()
    def iterate(self, state: State) -> None:
        """One step of Adam on the kept pixels, kept in the range of valid ones."""
        image, variable, pixels = state.image, state.variable, state.pixels
        for group in state.optimizer.param_groups:
            group["lr"] = self.config.recipe.learning_rate_at(state.iteration)
        state.losses[state.iteration], gradient = self.gradient(state, self.draw_jitter(state))
        if variable is image or pixels is None:
            variable.grad = gradient
        else:
            variable.grad = gradient.flatten(1).gather(1, pixels).view_as(variable)
        state.optimizer.step()
        variable.grad = None
        low, high = self.valid_range
        if variable is image or pixels is None:
            image.clamp_(low, high)
        else:
            channels = variable.view(*variable.shape[:2], image.shape[1], -1)  # [B, K, C, ph*pw]
            channels.clamp_(low.view(1, 1, -1, 1), high.view(1, 1, -1, 1))
            image.view(len(image), -1).scatter_(1, pixels, variable.flatten(1))

    @torch.enable_grad()
    def gradient(self, state: State, jitter: Jitter) -> tuple[Tensor, Tensor]:
        """(objective, its gradient to the whole image [B, C, H, W]), without touching the state.

        In micro-batches the result is that of one batch up to rounding: cross-entropy is a mean over images, so each
        part counts by its share, and the pixels' terms are norms over the batch that are not split.
        """
        recipe, passes, grid = self.config.recipe, self.passes, self.model.grid
        of_model, of_pixels = recipe.objective.of_model, recipe.objective.of_pixels
        gathered = state.kept is not None and recipe.student is None  # a student is fed whole images
        image = state.image.detach().requires_grad_()
        reads_view = (of_model is not None and not gathered) or (
            of_pixels is not None and of_pixels.reads_view
        )
        view = jitter.apply(image) if reads_view else None
        if of_pixels is None:
            loss, gradient = image.new_zeros(()), torch.zeros_like(state.image)
        else:
            loss = of_pixels(Step(image=image, view=view, chance=state.chance))
            (gradient,) = torch.autograd.grad(loss, image)
            # contiguous: a term of one's own may hand out an expanded or permuted one
            loss, gradient = loss.detach(), gradient.contiguous()
        if of_model is None:
            return loss, gradient
        run = partial(self._of_model, of_model)
        chance = state.chance
        count = len(image)
        size = passes.micro_batch or count
        for start in range(0, count, size):
            part = slice(start, min(start + size, count))
            share, targets = (part.stop - part.start) / count, state.targets[part]
            kept = None if state.kept is None else state.kept[part]
            cells = None if kept is None else jitter.remap(kept, grid)
            if kept is not None and gathered:
                places = jitter.pixel_index(kept, grid, image.shape[1])
                pixels = state.image[part].flatten(1).gather(1, places).unflatten(1, (kept.shape[1], -1))
                value, change = passes.run(run, pixels, cells, targets, share, chance)
                gradient[part].flatten(1).scatter_add_(1, places, change.flatten(1))
            else:
                assert view is not None
                value, change = passes.run(run, view[part].detach(), cells, targets, share, chance)
                gradient[part].add_(jitter.undo(change))
            loss = loss + value
        return loss, gradient

    def _of_model(
        self,
        objective: Objective,
        pixels: Tensor,
        cells: Tensor | None,
        targets: Tensor,
        share: float,
        chance: float,
    ) -> tuple[Tensor, Tensor]:
        """(share of the objective, its gradient to `pixels`): a jittered image, or kept patches' pixels
        [B, K, C*ph*pw] with the cells int64 [B, K] where they lie."""
        student = self.config.recipe.student
        pixels.requires_grad_()
        with self.passes.autocast(pixels.device):
            outputs = self.passes.observer.observe(pixels, cells, objective.needs)
            if student is not None:
                outputs["student_logits"] = student(self.as_the_student_sees(pixels))
        loss = objective(Step(image=pixels, view=pixels, targets=targets, chance=chance, **outputs))
        loss = loss if share == 1 else loss * share
        (gradient,) = torch.autograd.grad(loss, pixels)
        return loss.detach(), gradient

    @cached_property
    def _student_range(self) -> tuple[Tensor, Tensor] | None:
        """(factor, addend) from the model's normalisation to its student's; None where they are one."""
        assert self.config.recipe.student is not None
        (mean, std), (own_mean, own_std) = map(normalisation, (self.model.model, self.config.recipe.student))
        if mean.equal(own_mean) and std.equal(own_std):
            return None
        return std / own_std, (mean - own_mean) / own_std

    def as_the_student_sees(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] of the model's normalised space in the student's."""
        if self._student_range is None:
            return images
        factor, addend = self._student_range
        return images * factor + addend

    def draw_jitter(self, state: State) -> Jitter:
        """The augmentation of the iteration that comes."""
        height, width = state.image.shape[2:]
        return self.config.recipe.draw_jitter(state.iteration, height, width, state.jitter_generator)

    @torch.no_grad()
    def prune(self, state: State, count: int) -> None:
        """Rank the patches still in, or all where patches re-enter, and go on with `count` of each image."""
        stopping = self.config.stopping
        assert stopping is not None
        kept, importance = self.candidates(state), self.importance(state)
        remaining, positions = stopping.stay(kept, importance, count)
        if isinstance(stopping, Rebirth):
            last = len(state.traces.left) == stopping.parts - 2
            state.traces.left += [part.cpu() for part in stopping.leave(kept, importance, count, last)]
        ranked = torch.full(
            (len(kept), self.model.num_patches), float("nan"), dtype=torch.float32, device="cpu"
        )
        state.traces.importance.append(ranked.scatter_(1, kept.cpu(), importance.float().cpu()))
        if self.config.reenters:
            state.reenter(remaining, self.model.grid)
        else:
            self.narrow(state, remaining, positions)

    def candidates(self, state: State) -> Tensor:
        """Indices [B, K] of the patches that can go on: those still in, or all P where patches re-enter."""
        patches = self.model.num_patches
        return every_patch(state.image, patches) if self.config.reenters else state.kept_or_all(patches)

    @torch.no_grad()
    def importance(self, state: State) -> Tensor:
        """Importance of `candidates`, [B, K] in the score's own dtype, on the un-jittered image."""
        assert self.config.stopping is not None
        score, kept = find_score(self.config.stopping.score), self.candidates(state)
        with torch.enable_grad():  # weights are frozen, so a graph is made only for a score that asks for one
            return score(self.model, state.image.clone(), kept, state.score_generator).detach()

    def narrow(self, state: State, remaining: Tensor, positions: Tensor) -> None:
        """Leave the other patches as they are from here on; arguments as of `State.prune`."""
        state.prune(remaining, positions, self.model.grid)

    def finish(self, images: SyntheticImages) -> SyntheticImages:
        """The images of all batches as they are handed out."""
        return images

    def _figures(self, state: State) -> dict[str, float]:
        """What is shown of a batch on the way: its loss and, if patches stop, how many are still in."""
        figures = {"loss": float(state.losses[state.iteration - 1])}
        if self.config.stopping is not None:
            figures["patches"] = self.model.num_patches if state.kept is None else state.kept.shape[1]
        return figures

    def _snapshot(self, state: State) -> None:
        if state.iteration in self.config.snapshots:
            state.snapshot(self.model.num_patches)

    def _check_finite(self, state: State) -> None:
        recipe = self.config.recipe
        broken = (~torch.isfinite(state.losses[: state.iteration])).nonzero()
        if len(broken):
            raise NonFiniteLoss(
                f"the loss is {float(state.losses[broken[0, 0]])} at iteration {int(broken[0, 0])} "
                f"(recipe {recipe.name}, learning rate {recipe.learning_rate:g}): lower the learning rate, "
                "or check the model's weights"
            )


class Clock:
    """Seconds of each stage (the iterations between two stops), the device's queue emptied at both ends."""

    def __init__(self, state: State, patches: int) -> None:
        self.state, self.patches = state, patches
        self.start()

    def start(self) -> None:
        """Begin a piece of a stage."""
        synchronise(self.state.image.device)
        self.first, self.began = self.state.iteration, time.perf_counter()
        self.kept = self.patches if self.state.kept is None else self.state.kept.shape[1]

    def stop(self) -> None:
        """Book what has passed; pieces of one stage (before and after a resumption) are added up."""
        synchronise(self.state.image.device)
        seconds, iterations = time.perf_counter() - self.began, self.state.iteration - self.first
        stages = self.state.stages
        if stages and stages[-1]["patches"] == self.kept:
            stages[-1]["iterations"] += iterations
            stages[-1]["seconds"] += seconds
        elif iterations:
            stages.append({"patches": self.kept, "iterations": iterations, "seconds": seconds})

    def restart(self) -> None:
        """Book what has passed, and go on."""
        self.stop()
        self.start()

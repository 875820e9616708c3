"""Model inversion, dense and sparse (paper section 3): the public `invert`, and how batches become images.

Shapes: B images, C channels, H x W pixels, P patches, K kept. The loop over one batch is in smi/loop.py.
"""

from __future__ import annotations

import copy
import hashlib
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from smi import deviations as published
from smi import engine
from smi.checkpoint import Checkpoint, fingerprint
from smi.checks import is_whole
from smi.device import outside_autocast, resolved
from smi.errors import InvalidSetting, UnsupportedModel
from smi.images import SyntheticImages
from smi.loop import Batch, Plan, run_batch
from smi.objectives import BATCH_MEANS, PIXEL_TERMS
from smi.recipes import Recipe
from smi.recipes import recipe as find_recipe
from smi.stopping import Score, Stopping, cls_attention, find_score, least_attention
from smi.vit import frozen, normalisation

Progress = Callable[[int, int, Mapping[str, float]], None]


@outside_autocast()
def invert(
    model: nn.Module,
    count: int = 32,
    recipe: str | Recipe = "deepinversion",
    stopping: Stopping | None = None,
    seed: int = 0,
    *,
    score: str | Score = "cls_attention",
    targets: Sequence[int] | Tensor | None = None,
    iterations: int | None = None,
    batch_size: int | None = None,
    micro_batch: int | None = None,
    device: str | torch.device | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    compile: bool = False,
    cuda_graphs: bool = False,
    checkpoint: Any = None,
    checkpoint_seconds: float = 60.0,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    snapshots: Iterable[int] = (),
    student: nn.Module | None = None,
    deviations: Iterable[str] = (),
) -> SyntheticImages:
    """Synthesise images from a trained timm VisionTransformer, or densely from a CNN with BatchNorm (smi/cnn.py).

    model: never changed (weights, modes, hooks, flags); its timm data config gives the normalisation.
    count: images; batch_size: how many are optimised together (all by default). TV is a norm over the batch, so
        batch_size is part of the objective. micro_batch: how many of them go through the model together (all by
        default); this bounds memory and changes the result by rounding only, so it takes no objective that
        couples images through the model (patch similarity's shared grid, BatchNorm's statistics, the adaptive term).
    recipe: a name of RECIPES or a Recipe; iterations: overrides the recipe's number (the last stop must fit).
    stopping: None is dense; a Stopping makes it sparse: a stopped patch's pixels never change again (section 3.2).
    score: ranks patches at a stop: a name of SCORES or a callable; beside a checkpoint one with a name of its own.
    seed: equal seeds give equal bits on one machine (on a GPU, up to rounding). targets: int
        [count], drawn uniformly if None.
    device: where to run (the model's own by default). precision: "bf16" runs the model under autocast; pixels,
        losses and Adam stay float32.
    compile: run the model through torch.compile, anew in each stage; needs a C++ compiler (CPU) or Triton (GPU).
    cuda_graphs: record the model's launches once in each stage and replay them; CUDA only, not with compile.
        Both change the result by rounding only.
    checkpoint: a file for resumable state, written every `checkpoint_seconds` and on interruption; an existing one
        of the same run is continued to the same bits. The file stays when the run is done.
    progress: called with (iterations done, iterations in all, figures). should_stop: asked every iteration.
    snapshots: iterations whose images are kept in `traces` (0 is the noise).
    student: the model that the objective's adaptive term disagrees with; frozen, fed whole images, not changed.
    deviations: names of smi.deviations.OF_INVERSION: where to follow the published code instead of the paper.

    Returns SyntheticImages: pixels [count, C, H, W], kept [count, K] or None.
    Raises InvalidSetting, UnsupportedModel, CheckpointError, NonFiniteLoss; Interrupted when told to stop.
    """
    adapted = engine.adapt_any(model)
    chosen = find_recipe(recipe) if iterations is None else find_recipe(recipe, iterations=iterations)
    plan = Plan(
        recipe=chosen,
        stopping=stopping,
        score=find_score(score),
        precision=precision,
        snapshots=tuple(sorted(set(snapshots))),
        deviations=published.check(deviations, published.OF_INVERSION),
        micro_batch=micro_batch,
    )
    _check_model(adapted)
    _check(plan, adapted, count, batch_size)
    seed = _check_seed(seed)
    _check_student(student, chosen)
    targets = _check_targets(targets, count, adapted.classes)
    device = next(model.parameters()).device if device is None else resolved(device)
    engine.check(compile, cuda_graphs, device)
    if device != next(model.parameters()).device:
        adapted = engine.adapt_any(copy.deepcopy(model).to(device))
    if student is not None:
        student = (
            student if next(student.parameters()).device == device else copy.deepcopy(student).to(device)
        )
        plan = replace(plan, student=student)
    plan = replace(plan, observer=engine.observer(adapted, precision, chosen.objective.needs, compile))
    if cuda_graphs:
        plan = replace(plan, execute=engine.Replayed())
    settings = {
        "recipe": chosen.to_json(),
        "stopping": None if stopping is None else {"at": list(stopping.at), "drop": list(stopping.drop)},
        "score": score if isinstance(score, str) else getattr(score, "__qualname__", type(score).__name__),
        "seed": seed,
        "count": count,
        "batch_size": batch_size or count,
        "micro_batch": micro_batch,
        "precision": precision,
        "snapshots": list(plan.snapshots),
        "deviations": sorted(plan.deviations),
    }
    engines = {"compile": compile or None, "cuda_graphs": cuda_graphs or None}
    settings |= {name: on for name, on in engines.items() if on}
    identity = {}
    if checkpoint is not None:
        _check_name(score)
        weights = fingerprint(adapted.model)
        identity = {**settings, **engines} | {
            "weights": weights,
            "student": None if student is None else fingerprint(student),
            "targets": None if targets is None else targets.tolist(),
            "device": device.type,
        }
    saver = Checkpoint(checkpoint, identity, checkpoint_seconds)
    size = batch_size or count
    current = torch.cuda.device(device) if cuda_graphs else nullcontext()
    with frozen(adapted.model), frozen(student) if student is not None else nullcontext(), current:
        finished = _run_batches(adapted, plan, saver, seed, count, size, targets, progress, should_stop)
        made = settings | {"iterations": chosen.iterations, "device": device.type} | _merge_figures(finished)
        images = _assemble(adapted, plan, finished, made)
        return published.finish(images, adapted, stopping, plan.deviations)


def _check_student(student: nn.Module | None, recipe: Recipe) -> None:
    asked = "student_logits" in recipe.objective.needs
    if asked and student is None:
        raise InvalidSetting(f"recipe {recipe.name} has the adaptive term: give a student")
    if student is not None and not asked:
        raise InvalidSetting(
            f"a student was given, but recipe {recipe.name} has no term that asks for one (adaptive)"
        )


def _check(plan: Plan, adapted: Any, count: int, batch_size: int | None) -> None:
    sizes = {
        "count": count,
        "batch_size": count if batch_size is None else batch_size,
        "micro_batch": count if plan.micro_batch is None else plan.micro_batch,
    }
    for name, value in sizes.items():
        if not is_whole(value) or value < 1:
            raise InvalidSetting(f"{name} is {value!r}; allowed: a whole number >= 1")
    if plan.precision not in ("fp32", "bf16"):
        raise InvalidSetting(f"precision is {plan.precision!r}; allowed: fp32, bf16")
    coupled = [
        term.name for term in plan.recipe.objective.terms if term.name not in PIXEL_TERMS | BATCH_MEANS
    ]
    if plan.micro_batch is not None and coupled:
        raise InvalidSetting(
            f"micro_batch cannot split the term {coupled[0]}, which couples the images of a batch; allowed: None"
        )
    if any(not isinstance(t, int) or not 0 <= t <= plan.recipe.iterations for t in plan.snapshots):
        end = plan.recipe.iterations
        raise InvalidSetting(f"snapshots are {list(plan.snapshots)}; allowed: iterations 0 to {end}")
    if plan.stopping is not None:
        if not adapted.num_patches:
            kind = type(adapted.model).__name__
            raise UnsupportedModel(f"stopping needs the patches of a timm VisionTransformer; {kind} has none")
        if plan.score in (cls_attention, least_attention):
            adapted.need_class_token()
        plan.stopping.check(plan.recipe.iterations)
        plan.stopping.kept_counts(adapted.num_patches)


def _check_model(adapted: Any) -> None:
    kind = next(adapted.model.parameters()).dtype
    if kind != torch.float32:
        name = str(kind).removeprefix("torch.")
        raise UnsupportedModel(
            f"the model's weights are {name}; allowed: float32 (precision='bf16' is autocast: give model.float())"
        )


def _check_seed(seed: Any) -> int:
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool):
        raise InvalidSetting(f"seed is {seed!r}; allowed: a whole number")
    return int(seed)


def _check_name(score: str | Score) -> None:
    """A checkpoint knows a score of one's own by its name, so that it resumes with that one alone."""
    name = score if isinstance(score, str) else getattr(score, "__qualname__", "<lambda>")
    if "<lambda>" in name:
        raise InvalidSetting(
            "checkpoint: the score has no name by which a later run could know it again; "
            "allowed: a name of SCORES, or a function made with def"
        )


def _check_targets(targets: Any, count: int, classes: int) -> Tensor | None:
    if targets is None:
        return None
    targets = torch.as_tensor(targets)
    if targets.shape != (count,) or targets.is_floating_point() or targets.dtype == torch.bool:
        raise InvalidSetting(f"targets have shape {list(targets.shape)}; allowed: {count} whole numbers")
    if targets.min() < 0 or targets.max() >= classes:
        low, high = int(targets.min()), int(targets.max())
        raise InvalidSetting(f"targets lie in {low}..{high}; allowed: 0..{classes - 1}")
    return targets.to(torch.int64)


def derived_seed(seed: int, *purpose: int | str) -> int:
    """An independent 63-bit seed for each purpose: batches and streams never share random numbers."""
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _run_batches(
    adapted, plan, saver, seed, count, batch_size, targets, progress, should_stop
) -> list[Batch]:
    """One batch after the other; the checkpoint holds the finished ones and the state of the running one."""
    mean, std = normalisation(adapted.model)
    saved = saver.load()
    tensors, figures = saved if saved else ({}, {"batches": []})
    starts = range(0, count, batch_size)
    total = plan.recipe.iterations * len(starts)
    batches: list[Batch] = []
    for index, start in enumerate(starts):
        if index < len(figures["batches"]):
            batch = Batch.from_saved(index, tensors, figures["batches"][index], mean.device)
        else:
            size = min(batch_size, count - start)
            given = None if targets is None else targets[start : start + size]
            seeds = (derived_seed(seed, index, "images"), derived_seed(seed, index, "score"))
            batch = Batch.start(adapted, plan, size, given, seeds, mean.device)
        batches.append(batch)

        def save(batches: list[Batch] = batches) -> bool:
            pairs = [batch.to_saved(position) for position, batch in enumerate(batches)]
            return saver.save(
                {k: v for t, _ in pairs for k, v in t.items()}, {"batches": [f for _, f in pairs]}
            )

        def report(
            done: int, figures: Mapping[str, float], before: int = index * plan.recipe.iterations
        ) -> None:
            if progress is not None:
                progress(before + done, total, figures)

        run_batch(adapted, plan, batch, (mean, std), saver.due, save, report, should_stop or (lambda: False))
    save()
    return batches


def _merge_figures(batches: list[Batch]) -> dict[str, Any]:
    """Seconds, stages and the loss curve of all batches; the curve is their mean, at up to 200 points."""
    losses = torch.stack([batch.losses.cpu() for batch in batches]).mean(0)
    points = torch.linspace(0, len(losses) - 1, min(200, len(losses))).round().long().unique()
    stages: list[dict[str, Any]] = [dict(stage) for stage in batches[0].stages]
    for batch in batches[1:]:
        for stage, more in zip(stages, batch.stages, strict=True):
            stage["seconds"] += more["seconds"]
    return {
        "seconds": sum(stage["seconds"] for stage in stages),
        "stages": stages,
        "history": {"iteration": points.tolist(), "loss": losses[points].tolist()},
    }


def _assemble(adapted: Any, plan: Plan, batches: list[Batch], made: dict[str, Any]) -> SyntheticImages:
    mean, std = (t.cpu() for t in normalisation(adapted.model))
    pixels = torch.cat([batch.image.detach().cpu() for batch in batches])
    traces = {}
    if plan.snapshots:
        shots = [torch.stack([batch.snapshots[t] for t in plan.snapshots]) for batch in batches]
        traces["snapshot_pixels"] = (torch.cat(shots, 1) * std + mean).clamp(0, 1)
    if plan.stopping is not None:
        traces["importance"] = torch.cat([torch.stack(batch.importance) for batch in batches], 1)
        if plan.snapshots:
            masks = [torch.stack([batch.masks[t] for t in plan.snapshots]) for batch in batches]
            traces["snapshot_mask"] = torch.cat(masks, 1)
    return SyntheticImages(
        pixels=(pixels * std + mean).clamp(0, 1),
        targets=torch.cat([batch.targets.cpu() for batch in batches]),
        kept=None if plan.stopping is None else torch.cat([batch.kept.cpu() for batch in batches]),
        patch_size=adapted.patch_size,
        made=made,
        traces=traces,
    )

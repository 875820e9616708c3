"""Model inversion, dense and sparse (paper section 3): the public `invert`, and how batches become images.

Shapes: B images, C channels, H x W pixels, P patches, K kept. The loop over one batch is in smi/loop.py.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smi import published
from smi.adapters import Adapted, adapter_of
from smi.checkpoint import Checkpoint, Saver, fingerprint
from smi.checks import is_whole, plain, whole_seed
from smi.device import outside_autocast, resolved
from smi.errors import InvalidSetting, UnsupportedModel
from smi.execution import Execution
from smi.foreign.convert import model_given
from smi.images import SyntheticImages
from smi.loop import Loop
from smi.objectives import BATCH_MEANS, PIXEL_TERMS
from smi.recipes import Recipe
from smi.recipes import recipe as find_recipe
from smi.shortcuts import refuse_other_dtypes
from smi.state import Finished, InversionConfig, State
from smi.stopping import Stopping, cls_attention, find_score, least_attention
from smi.vit import frozen, normalisation
from smi.weights import copied, outside_inference_mode

Progress = Callable[[int, int, Mapping[str, float]], None]


@outside_autocast()
def invert(
    model: nn.Module,
    count: int = 32,
    recipe: str | Recipe = "deepinversion",
    stopping: Stopping | None = None,
    seed: int = 0,
    *,
    targets: Sequence[int] | Tensor | None = None,
    iterations: int | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    execution: Execution | None = None,
    checkpoint: str | Path | Checkpoint | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    snapshots: Iterable[int] = (),
) -> SyntheticImages:
    """Synthesise images from a trained Vision Transformer, or densely from a CNN with BatchNorm (smi/cnn.py).

    model: of timm, or what `smi.to_timm` converts; never changed (weights, modes, hooks, flags). timm's data config of
        it gives the normalisation.
    count: images; batch_size: how many are optimised together (all by default). TV is a norm over the batch, so
        batch_size is part of the objective.
    recipe: a name of RECIPES or a Recipe, with a student where its objective has the adaptive term; of
        smi.published.recipe to follow the published code in place of the paper. iterations: overrides the recipe's
        number (the last stop must fit).
    stopping: None is dense; a Stopping makes it sparse: a stopped patch's pixels never change again (section 3.2).
    seed: equal seeds give equal bits on one machine (on a GPU, up to rounding). targets: int
        [count], drawn uniformly if None.
    device: where to run (the model's own by default). execution: how the model is run there (micro-batches,
        torch.compile, CUDA graphs, bf16); eager and float32 by default.
    checkpoint: a file for resumable state, or a Checkpoint; written every so many seconds and on interruption. An
        existing one of the same run is continued to the same bits. The file stays when the run is done.
    progress: called with (iterations done, iterations in all, figures). should_stop: asked every iteration.
    snapshots: iterations whose images are kept in `traces` (0 is the noise).

    Returns SyntheticImages: pixels [count, C, H, W], kept [count, K] or None.
    Raises InvalidSetting, UnsupportedModel, CheckpointError, NonFiniteLoss; Interrupted when told to stop.
    """
    model = outside_inference_mode(model_given(model))
    _check_head(model)
    adapted: Adapted = adapter_of(model)
    execution = Execution() if execution is None else execution
    if not isinstance(execution, Execution):
        raise InvalidSetting(f"execution is {execution!r}; allowed: None, or a smi.Execution")
    chosen = find_recipe(recipe) if iterations is None else find_recipe(recipe, iterations=iterations)
    config = InversionConfig(chosen, stopping, tuple(sorted({*map(plain, snapshots)})))
    count, batch_size = plain(count), plain(batch_size)
    refuse_other_dtypes(model)
    _check_sizes(count, batch_size)
    _check_config(config, adapted, execution)
    seed = whole_seed(seed)
    targets = _check_targets(targets, count, adapted.classes)
    device = next(model.parameters()).device if device is None else resolved(device)
    execution.check(device)
    settings = _settings(config, execution) | {
        "seed": seed,
        "count": count,
        "batch_size": batch_size or count,
    }
    identity: dict[str, Any] = {}
    if checkpoint is not None:
        _check_name(stopping)
        identity = settings | {
            "compile": execution.compile or None,
            "cuda_graphs": execution.cuda_graphs or None,
            "weights": fingerprint(model),
            "student": None if chosen.student is None else fingerprint(chosen.student),
            "targets": None if targets is None else targets.tolist(),
            "device": device.type,
        }
    saver = Saver(checkpoint, identity)
    there, student = _on_device(model, device), None
    if there is not model:
        adapted = adapter_of(there)
    if chosen.student is not None:
        student = _on_device(outside_inference_mode(chosen.student), device)
        config = replace(config, recipe=find_recipe(chosen, student=student))
    loop = published.loop_of(adapted, config, execution.passes(adapted, chosen.objective.needs))
    sizes = [min(batch_size or count, count - start) for start in range(0, count, batch_size or count)]
    current = torch.cuda.device(device) if execution.cuda_graphs else nullcontext()
    with frozen(there), frozen(student) if student is not None else nullcontext(), current:
        finished = _run_batches(loop, saver, seed, sizes, targets, device, progress, should_stop)
        made = settings | {"iterations": chosen.iterations, "device": device.type} | _merge_figures(finished)
        return loop.finish(_assemble(loop, finished, made))


def _settings(config: InversionConfig, execution: Execution) -> dict[str, Any]:
    """What an inversion was made with, as JSON values: part of the images' `made` and of a checkpoint's identity."""
    stopping = config.stopping
    score = None if stopping is None else stopping.score
    settings = {
        "recipe": config.recipe.to_json(),
        "stopping": None if stopping is None else {"at": list(stopping.at), "drop": list(stopping.fractions)},
        "score": score if score is None or isinstance(score, str) else _name(score),
        "micro_batch": execution.micro_batch,
        "precision": execution.precision,
        "snapshots": list(config.snapshots),
        "deviations": published.deviations_of(config.recipe),
    }
    modes = {"compile": execution.compile, "cuda_graphs": execution.cuda_graphs}
    return settings | {name: on for name, on in modes.items() if on}


def _on_device(model: nn.Module, device: torch.device) -> nn.Module:
    """The model itself where it is there already, else a copy."""
    if next(model.parameters()).device == device:
        return model
    return copied(model, f"device={str(device)!r}").to(device)


def _check_sizes(count: Any, batch_size: Any) -> None:
    for name, value in {"count": count, "batch_size": count if batch_size is None else batch_size}.items():
        if not is_whole(value) or value < 1:
            raise InvalidSetting(f"{name} is {value!r}; allowed: a whole number >= 1")


def _check_config(config: InversionConfig, adapted: Adapted, execution: Execution) -> None:
    recipe, stopping = config.recipe, config.stopping
    coupled = [term.name for term in recipe.objective.terms if term.name not in PIXEL_TERMS | BATCH_MEANS]
    if execution.micro_batch is not None and coupled:
        raise InvalidSetting(
            f"micro_batch cannot split the term {coupled[0]}, which couples the images of a batch; allowed: None"
        )
    if any(not is_whole(t) or not 0 <= t <= recipe.iterations for t in config.snapshots):
        raise InvalidSetting(
            f"snapshots are {list(config.snapshots)}; allowed: iterations 0 to {recipe.iterations}"
        )
    if stopping is not None:
        adapted.need_kept_patches()
        if find_score(stopping.score) in (cls_attention, least_attention):
            adapted.need_class_token()
            if not adapted.reads_class_token:
                warnings.warn(
                    f"{type(adapted.model).__name__} pools by {adapted.model.global_pool!r}: its head never reads the "
                    "class token, whose attention ranks the patches; score='random' is the control",
                    stacklevel=4,
                )
        stopping.check(recipe.iterations)
        stopping.kept_counts(adapted.num_patches)
    asked = "student_logits" in recipe.objective.needs
    if asked and recipe.student is None:
        raise InvalidSetting(f"recipe {recipe.name} has the adaptive term: give a student")
    if recipe.student is not None and not asked:
        raise InvalidSetting(
            f"a student was given, but recipe {recipe.name} has no term that asks for one (adaptive)"
        )


def _check_head(model: nn.Module) -> None:
    if isinstance(getattr(model, "head", None), nn.Identity):
        raise UnsupportedModel(
            f"{type(model).__name__} has no linear classifier head (num_classes=0), and inversion aims at classes: "
            "train one (model.reset_classifier(n)), or quantize it with pictures of your own as smi.SyntheticImages"
        )


def _name(score: Any) -> str:
    return str(getattr(score, "__qualname__", type(score).__name__))


def _check_name(stopping: Stopping | None) -> None:
    """A checkpoint knows a score of one's own by its name, so that it resumes with that one alone."""
    score = None if stopping is None else stopping.score
    if callable(score) and "<lambda>" in getattr(score, "__qualname__", "<lambda>"):
        raise InvalidSetting(
            "checkpoint: the score has no name by which a later run could know it again; "
            "allowed: a name of SCORES, or a function made with def"
        )


def _check_targets(targets: Any, count: int, classes: int) -> Tensor | None:
    if targets is None:
        return None
    targets = torch.as_tensor(targets, device="cpu")
    if targets.shape != (count,) or targets.is_floating_point() or targets.dtype == torch.bool:
        raise InvalidSetting(f"targets have shape {list(targets.shape)}; allowed: {count} whole numbers")
    if targets.min() < 0 or targets.max() >= classes:
        low, high = int(targets.min()), int(targets.max())
        raise InvalidSetting(f"targets lie in {low}..{high}; allowed: 0..{classes - 1}")
    return targets.to(torch.int64).clone()  # no tensor of the caller's inference mode


def derived_seed(seed: int, *purpose: int | str) -> int:
    """An independent 63-bit seed for each purpose: batches and streams never share random numbers."""
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _run_batches(
    loop: Loop,
    saver: Saver,
    seed: int,
    sizes: Sequence[int],
    targets: Tensor | None,
    device: torch.device,
    progress: Progress | None,
    should_stop: Callable[[], bool] | None,
) -> list[Finished]:
    """One batch after the other; the checkpoint holds the finished ones' images and the state of the running one."""
    saved = saver.load()
    length = loop.config.recipe.iterations
    finished: list[Finished] = []
    for index, size in enumerate(sizes):
        found = saved.get(str(index), {})
        if found.get("finished"):
            finished.append(Finished.from_state_dict(found))
            continue
        given = None if targets is None else targets[sum(sizes[:index]) :][:size]
        seeds = (derived_seed(seed, index, "images"), derived_seed(seed, index, "score"))
        state = State.start(loop.model, loop.config, size, given, seeds, device)
        if found:
            state.load_state_dict(found, loop.model.grid)

        def save(*running: State) -> bool:
            batches: list[Finished | State] = [*finished, *running]
            return saver.save({str(position): batch.state_dict() for position, batch in enumerate(batches)})

        def report(done: int, figures: Mapping[str, float], before: int = index * length) -> None:
            if progress is not None:
                progress(before + done, length * len(sizes), figures)

        loop.run(state, saver.due, partial(save, state), report, should_stop or (lambda: False))
        finished.append(state.finish())
        del state  # its optimiser goes before the next batch comes
    saver.save({str(position): batch.state_dict() for position, batch in enumerate(finished)})
    return finished


def _merge_figures(batches: Sequence[Finished]) -> dict[str, Any]:
    """Seconds, stages and the loss curve of all batches; the curve is their mean, at up to 200 points."""
    losses = torch.stack([batch.losses for batch in batches]).mean(0)
    points = (
        torch.linspace(0, len(losses) - 1, min(200, len(losses)), dtype=torch.float32, device="cpu")
        .round()
        .long()
        .unique()
    )
    stages: list[dict[str, Any]] = [dict(stage) for stage in batches[0].stages]
    for batch in batches[1:]:
        for stage, more in zip(stages, batch.stages, strict=True):
            stage["seconds"] += more["seconds"]
    return {
        "seconds": sum(stage["seconds"] for stage in stages),
        "stages": stages,
        "history": {"iteration": points.tolist(), "loss": losses[points].tolist()},
    }


def _assemble(loop: Loop, batches: Sequence[Finished], made: dict[str, Any]) -> SyntheticImages:
    mean, std = (t.cpu() for t in normalisation(loop.model.model))
    pixels = torch.cat([batch.image for batch in batches])
    kept = [batch.kept for batch in batches if batch.kept is not None]
    shots, sparse = loop.config.snapshots, loop.config.stopping is not None
    traces = {}

    def of_all(kind: str) -> Tensor:
        found = [getattr(batch.traces, kind) for batch in batches]
        return torch.cat([torch.stack([one[t] for t in shots]) for one in found], 1)

    if shots:
        traces["snapshot_pixels"] = (of_all("snapshots") * std + mean).clamp(0, 1)
    if sparse:
        traces["importance"] = torch.cat([torch.stack(batch.traces.importance) for batch in batches], 1)
    if sparse and shots:
        traces["snapshot_mask"] = of_all("masks")
    return SyntheticImages(
        pixels=(pixels * std + mean).clamp(0, 1),
        targets=torch.cat([batch.targets for batch in batches]),
        kept=torch.cat(kept) if kept else None,
        patch_size=loop.model.patch_size,
        made=made,
        traces=traces,
    )

"""Model inversion, dense and sparse (paper section 3): the public `invert`, and how batches become images.

Shapes: B images, C channels, H x W pixels, P patches, K kept. The loop over one batch is in smi/loop.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from smi import published
from smi.adapters import Adapted, adapter_of
from smi.checkpoint import ANSWERS, Checkpoint, Saver, fingerprint
from smi.checks import plain, whole_seed
from smi.device import float32_arithmetic, outside_callers_modes, resolved
from smi.errors import InvalidSetting
from smi.execution import Execution
from smi.foreign.convert import model_given
from smi.identity import answers, of_function
from smi.images import SyntheticImages
from smi.interrupt import resumable
from smi.inversion_checks import (
    check_config,
    check_head,
    check_name,
    check_sizes,
    check_targets,
)
from smi.loop import Loop
from smi.objectives import TERMS
from smi.progress import Progress, shown
from smi.rebirth import Rebirth, Schedule
from smi.recipes import Recipe
from smi.recipes import recipe as find_recipe
from smi.shortcuts import refuse_other_dtypes
from smi.state import Finished, InversionConfig, State
from smi.stopping import find_score
from smi.vit import frozen, normalisation
from smi.weights import copied, outside_inference_mode

QUICK = 20  # iterations: see the docstring of `invert`
BATCH = 32  # images optimised together by default


@outside_callers_modes()
def invert(
    model: nn.Module,
    count: int = 32,
    recipe: str | Recipe = "deepinversion",
    stopping: Schedule | None = None,
    seed: int = 0,
    *,
    targets: Sequence[int] | Tensor | None = None,
    iterations: int | Literal["quick", "paper"] | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    execution: Execution | None = None,
    checkpoint: str | Path | Checkpoint | None = None,
    progress: bool | Progress = True,
    should_stop: Callable[[], bool] | None = None,
    snapshots: Iterable[int] = (),
) -> SyntheticImages:
    """Synthesise images from a trained Vision Transformer, or densely from a CNN with BatchNorm (smi/cnn.py).

    model: of timm, or what `smi.to_timm` converts; never changed (weights, modes, hooks, flags). timm's data config of
        it gives the normalisation.
    count: images; batch_size: how many are optimised together, min(count, 32) by default. TV is a norm over the batch,
        so batch_size is part of the objective; beyond 32, asking for more images changes no full batch.
    recipe: a name of RECIPES or a Recipe, with a student where its objective has the adaptive term; of
        smi.published.recipe to follow the published code in place of the paper. iterations: overrides the recipe's
        number (the last stop must fit). "paper" is the recipe's own, 4000 for "deepinversion". "quick" is 20, for
        calibration: the error of the logits after it, with dense images, was 4.8% on CIFAR-10 (W8/A8; at best 4.8%,
        after one iteration 8.6%) and 8.4% on digits (W4/A8; 7.3%, 9.2%), in a nineteenth and an eighth of the longest
        run's time (1.3 s and 0.9 s on a CPU): results/*/ablation_iterations.md. A student wants the longer runs.
    stopping: None is dense; a Stopping makes it sparse: a stopped patch's pixels never change again (section 3.2). A
        Rebirth gives several sparse images a trajectory; batch_size and targets are of trajectories then.
    seed: equal seeds give equal bits on one machine; on a GPU, whose sums have no fixed order, images that differ by
        what rounding grows to. targets: int [count], drawn uniformly if None.
    device: where to run (the model's own by default). execution: how the model is run there (micro-batches,
        torch.compile, CUDA graphs, bf16); eager and float32 by default.
    checkpoint: a file for resumable state, or a Checkpoint; written every so many seconds and on interruption. An
        existing one of the same run is continued to the same bits (on a GPU: as near as equal seeds). The file stays
        when the run is done.
    progress: True shows a bar with loss, patches still in and time left (one line at the end where nobody watches),
        False nothing; a callable is called with (iterations done, iterations in all, figures). should_stop: asked every
        iteration. Ctrl-C stops between two iterations: with a checkpoint the state is saved and the same call goes on
        from there, without one nothing is kept. A second Ctrl-C stops at once.
    snapshots: iterations whose images are kept in `traces` (0 is the noise).

    Returns SyntheticImages: pixels [count, C, H, W], kept [count, K] or None.
    Raises InvalidSetting, UnsupportedModel, CheckpointError, NonFiniteLoss; Interrupted when told to stop,
    KeyboardInterrupt after Ctrl-C.
    """
    model = outside_inference_mode(model_given(model))
    check_head(model)
    adapted: Adapted = adapter_of(model)
    execution = Execution() if execution is None else execution
    if not isinstance(execution, Execution):
        raise InvalidSetting(f"execution is {execution!r}; allowed: None, or a smi.Execution")
    chosen = _with_length(recipe, iterations)
    stopping = None if stopping is None else stopping.resolved(chosen.iterations)
    config = InversionConfig(chosen, stopping, tuple(sorted({*map(plain, snapshots)})))
    count, batch_size = plain(count), plain(batch_size)
    refuse_other_dtypes(model)
    check_sizes(count, batch_size)
    runs = count if stopping is None else -(-count // stopping.parts)  # a Rebirth's trajectories
    batch_size = min(runs, BATCH) if batch_size is None else batch_size
    check_config(config, adapted, execution)
    seed = whole_seed(seed)
    targets = check_targets(targets, runs, adapted.classes)
    device = next(model.parameters()).device if device is None else resolved(device)
    execution.check(device)
    settings = _settings(config, execution) | {
        "seed": seed,
        "count": count,
        "batch_size": batch_size,
    }
    identity: dict[str, Any] = {}
    if checkpoint is not None:
        check_name(stopping)
        identity = settings | {
            "compile": execution.compile or None,
            "cuda_graphs": execution.cuda_graphs or None,
            "weights": fingerprint(model),
            ANSWERS: answers(model, (adapted.channels, adapted.grid.height, adapted.grid.width)),
            "student": None if chosen.student is None else fingerprint(chosen.student),
            "code of the score": None if stopping is None else of_function(find_score(stopping.score)),
            "code of the terms": {t.name: of_function(TERMS[t.name]) for t in chosen.objective.terms},
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
    sizes = [min(batch_size, runs - start) for start in range(0, runs, batch_size)]
    current = torch.cuda.device(device) if execution.cuda_graphs else nullcontext()
    what = f"invert {count} image{'s' if count > 1 else ''}"
    with (
        frozen(there),
        frozen(student) if student is not None else nullcontext(),
        current,
        float32_arithmetic(device, execution.precision),
        shown(progress, what, "iteration") as tell,
        resumable(should_stop, checkpoint is not None) as stop,
    ):
        finished = _run_batches(loop, saver, seed, sizes, targets, device, tell, stop)
        made = settings | {"iterations": chosen.iterations, "device": device.type} | _merge_figures(finished)
        images = loop.finish(_assemble(loop, finished, made))
        return reborn(images, finished, stopping, count) if isinstance(stopping, Rebirth) else images


def _with_length(recipe: str | Recipe, iterations: int | str | None) -> Recipe:
    """The recipe with so many iterations, or with those of a preset."""
    if iterations is None or iterations == "paper":
        return find_recipe(recipe)
    if isinstance(iterations, str) and iterations != "quick":
        raise InvalidSetting(f"iterations is {iterations!r}; allowed: a whole number >= 1, quick, paper")
    return find_recipe(recipe, iterations=QUICK if iterations == "quick" else iterations)


def _settings(config: InversionConfig, execution: Execution) -> dict[str, Any]:
    """What an inversion was made with, as JSON values: part of the images' `made` and of a checkpoint's identity."""
    stopping = config.stopping
    score = None if stopping is None else stopping.score
    settings = {
        "recipe": config.recipe.to_json(),
        "stopping": None if stopping is None else stopping.to_json(),
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


def _name(score: Any) -> str:
    return str(getattr(score, "__qualname__", type(score).__name__))


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
    should_stop: Callable[[], bool],
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

        loop.run(state, saver.due, partial(save, state), report, should_stop)
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


def reborn(
    images: SyntheticImages, batches: Sequence[Finished], stopping: Rebirth, count: int
) -> SyntheticImages:
    """`count` images, those of a trajectory one after the other, from trajectories that have run to the end: a patch
    that has left never changed again, so all of them are parts of the same pixels."""
    every = torch.arange(len(images), device="cpu").repeat_interleave(stopping.parts)[:count]
    kept = [torch.stack(batch.traces.left, 1) for batch in batches if batch.traces.left]
    traces = {name: tensor.index_select(1, every) for name, tensor in images.traces.items()}
    return replace(
        images.select(every),
        kept=torch.cat(kept).flatten(0, 1)[:count] if kept else None,
        traces=traces,
        trajectory=every,
        part=torch.arange(stopping.parts, device="cpu").repeat(len(images))[:count],
    )


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
    if any(batch.traces.importance for batch in batches):
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

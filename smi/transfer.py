"""Knowledge transfer without data (paper section 4, Table 4): a student learns a teacher's logits on a pool of images.

Loss: KL(teacher || student) at temperature T, times T^2, batch mean; teacher and student see the kept patches alone.
The loop is in smi/distillation.py, the pool in smi/pool.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from smi.checkpoint import Checkpoint, fingerprint
from smi.checks import is_whole
from smi.device import outside_autocast, resolved
from smi.distillation import Evaluate, Run, Settings
from smi.errors import InvalidSetting, UnsupportedModel
from smi.inversion import Progress
from smi.pool import Pool, Source
from smi.vit import TokenModel, adapt, frozen

LEARNING_RATES = {"sgd": 0.1, "adamw": 1e-3}
WEIGHT_DECAYS = {"sgd": 1e-4, "adamw": 0.05}


@dataclass(frozen=True)
class Transfer:
    """What `distil` gives.

    student: the trained copy, in evaluation mode. curve: one entry for each evaluation, {"step", "loss", "pool" and
    what `evaluate` returned}; loss is the mean since the entry before, pool the images there were. seconds: of the
    steps alone, without evaluations. kept: patches that each image was shown through, None where all were.
    """

    student: nn.Module
    curve: list[dict[str, Any]]
    seconds: float
    kept: int | None


def transfer(
    teacher: nn.Module,
    student: nn.Module,
    images: Source | Iterable[Source],
    steps: int = 500,
    temperature: float = 20.0,
    **settings: Any,
) -> nn.Module:
    """Train a copy of `student` on `images` until it answers as `teacher` does; returns the copy, evaluation mode.

    Neither model given is changed. Further settings, errors, and the curve over steps: see `distil`.
    """
    return distil(teacher, student, images, steps, temperature, **settings).student


@outside_autocast()
def distil(
    teacher: nn.Module,
    student: nn.Module,
    images: Source | Iterable[Source],
    steps: int = 500,
    temperature: float = 20.0,
    *,
    batch_size: int = 32,
    rounds: int = 1,
    train: Literal["all", "head"] = "all",
    optimizer: Literal["adamw", "sgd"] = "adamw",
    learning_rate: float | None = None,
    momentum: float = 0.9,
    betas: Sequence[float] = (0.9, 0.999),
    weight_decay: float | None = None,
    flip: float = 0.5,
    jitter: float = 0.0,
    patches: int | None = None,
    seed: int = 0,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: str | torch.device | None = None,
    evaluate: Evaluate | None = None,
    evaluate_every: int | None = None,
    checkpoint: Any = None,
    checkpoint_seconds: float = 60.0,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Transfer:
    """Transfer knowledge from a teacher to a copy of a student, timm VisionTransformers with the same patch grid.

    images: SyntheticImages, the path of saved ones, or several of these; each is shown through its kept patches.
        Files are read as they are drawn from, so a pool may be larger than the memory.
    steps: optimiser steps in all. rounds: equal parts of the steps; the sets are dealt to them evenly, and in a round
        all sets of the rounds so far are there. The paper: 1000 sets of 100 images, rounds=1000, steps=1000.
    batch_size: images per step, all different; fewer where the pool is smaller.
    train: "all" weights, or "head": the classifier on a frozen backbone in evaluation mode (the paper).
    optimizer: "adamw" (learning rate .001, weight decay .05, betas) or "sgd" (.1, 1e-4, momentum: the paper).
    flip: probability of mirroring an image, and its kept set, left-right. jitter: largest roll of an image in rows
        and columns, as a fraction of its sides; kept sets move to the nearest cells (as in the inversion).
    patches: show each image through so many random ones of its patches, drawn anew each time, whatever its kept set.
    seed: equal seeds give equal bits on one machine (on a GPU, up to rounding). device: the student's own by default.
    precision: "bf16" runs both models under autocast; weights, losses and the optimiser stay float32.
    evaluate: given the student (evaluation mode), returns figures for the curve; called before the first step, every
        `evaluate_every` steps and after the last one.
    checkpoint: a file for resumable state, written every `checkpoint_seconds` and on interruption; an existing one of
        the same run is continued to the same bits.
    progress: called with (steps done, steps in all, figures). should_stop: asked every step.

    Raises InvalidSetting, InvalidImages, UnsupportedModel, CheckpointError; Interrupted when told to stop;
    NonFiniteLoss with the step, before that step is taken: the checkpoint then holds the weights before it.
    """
    chosen = Settings(
        steps=steps,
        temperature=temperature,
        batch_size=batch_size,
        rounds=rounds,
        train=train,
        optimizer=_one_of("optimizer", optimizer, LEARNING_RATES),
        learning_rate=LEARNING_RATES[optimizer] if learning_rate is None else learning_rate,
        momentum=momentum,
        betas=tuple(betas),
        weight_decay=WEIGHT_DECAYS[optimizer] if weight_decay is None else weight_decay,
        flip=flip,
        jitter=jitter,
        patches=patches,
        seed=seed,
        precision=precision,
    )
    if evaluate_every is not None and not (is_whole(evaluate_every) and evaluate_every >= 1):
        raise InvalidSetting(f"transfer: evaluate_every is {evaluate_every!r}; allowed: a whole number >= 1")
    taught_by, taught = adapt(teacher), adapt(student)
    _check_pair(taught_by, taught)
    pool = Pool(images, taught_by.grid, taught_by.channels, taught_by.classes, rounds, patches)
    identity = {}
    if checkpoint is not None:
        weights = {"teacher": fingerprint(teacher), "student": fingerprint(student)}
        identity = {**vars(chosen), "betas": list(chosen.betas), "evaluate_every": evaluate_every}
        identity |= {**weights, **pool.identity()}
    device = next(student.parameters()).device if device is None else resolved(device)
    if next(teacher.parameters()).device != device:
        taught_by = adapt(copy.deepcopy(teacher).to(device))
    taught = adapt(copy.deepcopy(student).to(device))
    saver = Checkpoint(checkpoint, identity, checkpoint_seconds)
    with frozen(taught_by.model):
        run = Run(chosen, taught_by, taught, pool, device)
        run.resume(saver)
        run.go(saver, evaluate, evaluate_every, progress, should_stop or (lambda: False))
    for trained, given in zip(taught.model.parameters(), student.parameters(), strict=True):
        trained.requires_grad_(given.requires_grad)
    return Transfer(taught.model.eval(), run.curve, run.seconds, pool.kept)


def _check_pair(teacher: TokenModel, student: TokenModel) -> None:
    """Raise UnsupportedModel unless both take the same images, cut alike, and know the same classes."""
    facts = {
        "classes": (teacher.classes, student.classes),
        "channels": (teacher.channels, student.channels),
        "input size": tuple((m.grid.height, m.grid.width) for m in (teacher, student)),
        "patch size": (teacher.patch_size, student.patch_size),
    }
    for what, (of_teacher, of_student) in facts.items():
        if of_teacher != of_student:
            raise UnsupportedModel(
                f"transfer: the teacher's {what}: {of_teacher}, the student's: {of_student}; they must be equal"
            )


def _one_of(name: str, value: Any, allowed: Iterable[str]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise InvalidSetting(f"transfer: {name} is {value!r}; allowed: {', '.join(allowed)}")
    return value

"""Knowledge transfer without data (paper section 4, Table 4): a student learns a teacher's logits on a pool of images.

Loss: KL(teacher || student) at temperature T, times T^2, batch mean; teacher and student see the kept patches alone.
The loop is in smi/distillation.py, the pool in smi/pool.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from smi.checkpoint import ANSWERS, Checkpoint, Saver, fingerprint
from smi.checks import is_whole, whole_seed
from smi.device import float32_arithmetic, outside_callers_modes, resolved
from smi.distillation import Evaluate, Run
from smi.errors import InvalidSetting, UnsupportedModel
from smi.foreign.convert import model_given
from smi.identity import answers
from smi.interrupt import resumable
from smi.pool import Pool, Source
from smi.progress import Progress, shown
from smi.shortcuts import refuse_other_dtypes
from smi.transfer_recipes import TransferRecipe, transfer_recipe
from smi.vit import TokenModel, adapt, frozen
from smi.weights import copied, outside_inference_mode


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
    steps: int | None = None,
    temperature: float | None = None,
    **settings: Any,
) -> nn.Module:
    """Train a copy of `student` on `images` until it answers as `teacher` does; returns the copy, evaluation mode.

    Neither model given is changed. Further settings, errors, and the curve over steps: see `distil`.
    """
    return distil(teacher, student, images, steps, temperature, **settings).student


@outside_callers_modes()
def distil(
    teacher: nn.Module,
    student: nn.Module,
    images: Source | Iterable[Source],
    steps: int | None = None,
    temperature: float | None = None,
    *,
    recipe: str | TransferRecipe = "default",
    batch_size: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    evaluate: Evaluate | None = None,
    evaluate_every: int | None = None,
    checkpoint: str | Path | Checkpoint | None = None,
    progress: bool | Progress = True,
    should_stop: Callable[[], bool] | None = None,
) -> Transfer:
    """Transfer knowledge from a teacher to a copy of a student, Vision Transformers with the same patch grid.

    teacher, student: of timm, or what `smi.to_timm` converts; the trained copy is timm's then.
    images: SyntheticImages, the path of saved ones, or several of these; each is shown through its kept patches.
        Files are read as they are drawn from, so a pool may be larger than the memory.
    recipe: a name of TRANSFER_RECIPES ("default": all weights by AdamW; "paper": a linear head by SGD, for 1000 sets of
        100 images) or a TransferRecipe, e.g. smi.transfer_recipe("default", learning_rate=3e-3, rounds=2).
    steps, temperature, batch_size: override the recipe's.
    seed: equal seeds give equal bits on one machine; on a GPU, whose sums have no fixed order, up to what rounding
        grows to. device: the student's own by default.
    evaluate: given the student (evaluation mode), returns figures for the curve; called before the first step, every
        `evaluate_every` steps and after the last one.
    checkpoint: a file for resumable state, or a Checkpoint; written every so many seconds and on interruption. An
        existing one of the same run is continued to the same bits (on a GPU: as near as equal seeds).
    progress: True shows a bar (one line at the end where nobody watches), False nothing; a callable is called with
        (steps done, steps in all, figures). should_stop: asked every step. Ctrl-C: as in `smi.invert`.

    Raises InvalidSetting, InvalidImages, UnsupportedModel, CheckpointError; Interrupted when told to stop;
    NonFiniteLoss with the step, before that step is taken: the checkpoint then holds the weights before it.
    """
    given = {"steps": steps, "temperature": temperature, "batch_size": batch_size}
    chosen = transfer_recipe(recipe, **{name: value for name, value in given.items() if value is not None})
    seed = whole_seed(seed)
    if evaluate_every is not None and not (is_whole(evaluate_every) and evaluate_every >= 1):
        raise InvalidSetting(f"transfer: evaluate_every is {evaluate_every!r}; allowed: a whole number >= 1")
    teacher, student = (outside_inference_mode(model_given(model)) for model in (teacher, student))
    taught_by, taught = adapt(teacher), adapt(student)
    _check_pair(taught_by, taught)
    pool = Pool(images, taught_by.grid, taught_by.channels, taught_by.classes, chosen.rounds, chosen.patches)
    identity: dict[str, Any] = {}
    if checkpoint is not None:
        identity = {**chosen.to_json(), "seed": seed, "evaluate_every": evaluate_every, **pool.identity()}
        identity |= {"teacher": fingerprint(teacher), "student": fingerprint(student)}
        identity[ANSWERS] = answers(
            teacher, (taught_by.channels, taught_by.grid.height, taught_by.grid.width)
        )
        identity["trained"] = [name for name, p in student.named_parameters() if p.requires_grad]
    if pool.kept is not None:
        for model in (taught_by, taught):
            model.need_kept_patches()
    device = next(student.parameters()).device if device is None else resolved(device)
    if next(teacher.parameters()).device != device:
        taught_by = adapt(copied(teacher, f"device={str(device)!r}").to(device))
    taught = adapt(copied(student, "transfer").to(device))
    saver = Saver(checkpoint, identity)
    with (
        frozen(taught_by.model),
        float32_arithmetic(device, chosen.precision),
        shown(progress, "distil", "step") as tell,
        resumable(should_stop, checkpoint is not None) as stop,
    ):
        run = Run(chosen, seed, taught_by, taught, pool, device)
        run.resume(saver)
        run.go(saver, evaluate, evaluate_every, tell, stop)
    for trained, before in zip(taught.model.parameters(), student.parameters(), strict=True):
        trained.requires_grad_(before.requires_grad)
    return Transfer(taught.model.eval(), run.curve, run.seconds, pool.kept)


def _check_pair(teacher: TokenModel, student: TokenModel) -> None:
    """Raise UnsupportedModel unless both take the same images, cut alike, and know the same classes, in float32."""
    refuse_other_dtypes(teacher.model, "teacher")
    refuse_other_dtypes(student.model, "student")
    if getattr(student.model, "distilled_training", False):
        raise UnsupportedModel(
            "transfer: the student is in distilled training, where it answers twice: call "
            "student.set_distilled_training(False)"
        )
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

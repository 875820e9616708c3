"""Kind "transfer": a student learns from the teacher on a pool of images; scored on whole test pictures on the way.

inputs: teacher; images_000000, images_000001, ... in the order in which their sets join the pool; and student, where it
does not start from fresh weights (it is copied, head and all). settings:
    student: bench.models.describe, of ours (fresh weights) or of timm's (pretrained, with a fresh head: "classes").
    seed: of the student's fresh weights, of the draws from the pool and of their augmentation.
    transfer: smi.TransferRecipe as JSON; evaluate_every: steps between two entries of the curve.
    test: bench.datasets.fingerprint of the test split.
"""

from __future__ import annotations

from typing import Any

from torch import nn

import smi
from bench import models
from bench.engine.task import Job
from bench.tasks.images import FILE
from bench.tasks.scoring import top1
from bench.tasks.splits import split_of
from smi.inversion import derived_seed


def run(job: Job) -> dict[str, Any]:
    """Metrics: top1 (%, after the last step), curve ([{step, loss, pool, top1}]), seconds (of the steps alone),
    images (in the whole pool), kept (patches that an image is shown through), patches, pictures (of test).

    The trained student is the artifact (bench.models.save)."""
    settings = job.task.settings
    teacher, data = models.load(job.inputs["teacher"], job.device)
    if "student" in job.inputs:
        student, _ = models.load(job.inputs["student"], job.device)
    else:
        student = fresh_student(settings["student"], settings["seed"], data, job).to(job.device)
    test = split_of(job, "test", data)
    pool = [job.inputs[name] / FILE for name in sorted(job.inputs) if name.startswith("images_")]
    outcome = smi.distil(
        teacher,
        student,
        pool,
        recipe=smi.TransferRecipe.from_json(settings["transfer"]),
        seed=settings["seed"],
        device=job.device,
        evaluate=lambda model: {"top1": top1(model, test, job.device)},
        evaluate_every=settings["evaluate_every"],
        checkpoint=job.checkpoint,
        progress=job.progress,
        should_stop=job.should_stop,
    )
    models.save(outcome.student, settings["student"], job.out)
    last, patches = outcome.curve[-1], smi.vit.adapt(teacher).num_patches
    return {
        "top1": last["top1"],
        "curve": outcome.curve,
        "seconds": outcome.seconds,
        "images": last["pool"],
        "kept": outcome.kept or patches,
        "patches": patches,
        "pictures": len(test),
    }


def fresh_student(described: dict[str, Any], seed: int, data: dict[str, Any], job: Job) -> nn.Module:
    """The student before its first step. It never starts from the weights that the teacher's training started from."""
    student = models.create(described, job.sources)
    start = derived_seed(seed, "student")
    if "architecture" in described:
        models.initialise_micro_vit(student, start)
        models.set_data_config(student, data["mean"], data["std"])
    else:
        models.initialise_head(student, start)
    return student

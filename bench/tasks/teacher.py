"""Kind "teacher": a model with its weights, trained here or pretrained, as artifact (bench/models/__init__.py).

settings: model (bench.models.describe), seed, and for a model that is trained here: dataset, train and validation
(bench.datasets.fingerprint), and training (bench.models.training.expand) or, for a pretrained model, fine_tuning
(bench.models.fine_tuning.expand). inputs: tutor, the task of a model whose logits a trained one learns, if there is
one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench import models
from bench.datasets import in_memory
from bench.engine.task import Job
from bench.models import fine_tuning, training
from bench.tasks.scoring import top1
from bench.tasks.splits import split_of
from smi.device import autocast
from smi.vit import normalisation


def run(job: Job) -> dict[str, Any]:
    """Metrics: parameters; if trained: validation_top1 (%), loss (last, smoothed); if trained from scratch: curve (that
    loss at the end of each epoch)."""
    settings = job.task.settings
    model = models.create(settings["model"], job.sources)
    metrics: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    if settings.get("training"):
        metrics |= _train(model, job)
    elif settings.get("fine_tuning"):
        metrics |= _fine_tune(model, job)
    models.save(model, settings["model"], job.out)
    return metrics


def _train(model: torch.nn.Module, job: Job) -> dict[str, Any]:
    settings = job.task.settings
    size = {"input_size": models.input_size(model)}
    pictures, labels = in_memory(split_of(job, "train", size)).tensors
    models.set_data_config(
        model, pictures.mean((0, 2, 3)).tolist(), pictures.std((0, 2, 3), correction=0).tolist()
    )
    models.initialise(model, settings["seed"])
    model.to(job.device)
    mean, std = normalisation(model)
    curve = training.train(
        model,
        pictures,
        labels,
        settings["training"],
        settings["seed"],
        normalise=lambda image: (image - mean) / std,
        device=job.device,
        checkpoint=job.checkpoint,
        progress=job.progress,
        should_stop=job.should_stop,
        tutor=_tutor(job),
    )
    validation = split_of(job, "validation", size)
    return {"validation_top1": top1(model, validation, job.device), "loss": curve[-1], "curve": curve}


def _tutor(job: Job) -> Callable[[Tensor], Tensor] | None:
    """The tutor's logits of pictures in [0, 1], in the precision of the training; None where the labels are learnt."""
    if "tutor" not in job.inputs:
        return None
    model, _ = models.load(job.inputs["tutor"], job.device)
    mean, std = normalisation(model)
    precision = {**training.DEFAULTS, **job.task.settings["training"]}["precision"]

    def logits(pictures: Tensor) -> Tensor:
        with autocast(torch.device(job.device), precision):
            return model((pictures - mean) / std)

    return logits


def _fine_tune(model: torch.nn.Module, job: Job) -> dict[str, Any]:
    settings, size = job.task.settings, models.data_config(model)
    models.initialise_head(model, settings["seed"])
    loss = fine_tuning.fine_tune(
        model,
        split_of(job, "train", size),
        settings["fine_tuning"],
        settings["seed"],
        device=job.device,
        checkpoint=job.checkpoint,
        progress=job.progress,
        should_stop=job.should_stop,
    )
    validation = split_of(job, "validation", size)
    return {"validation_top1": top1(model, validation, job.device), "loss": loss}

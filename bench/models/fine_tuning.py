"""Fine-tuning a pretrained timm ViT on a data set of pictures, or a linear head on its frozen backbone.

AdamW, cosine with warm-up, mirroring and small shifts. Deterministic on one machine and resumable at any step: the
order of the pictures and their augmentation are drawn from the seed and the step alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

import smi
from bench.datasets.loading import load
from bench.errors import BenchError
from bench.models.training import checked, cosine, keep, random_flip, random_shift, resume, seeded
from bench.models.weights import HEADS
from smi.device import PRECISIONS, autocast
from smi.vit import normalisation

DEFAULTS: dict[str, Any] = {
    "train": "head",  # or "all" weights
    "epochs": 10,
    "batch_size": 128,
    "lr": 1e-3,
    "weight_decay": 1e-4,
    "warmup": 0.05,  # share of the steps
    "clip": 1.0,  # norm of all gradients
    "flip": 0.5,  # probability of mirroring a picture left-right
    "shift": 16,  # pixels, up to which a picture is moved in each direction
    "precision": "fp32",  # or "bf16" autocast
}
CHOICES = {"train": ("head", "all"), "precision": PRECISIONS}


def expand(settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a fine-tuning, as JSON values. Raises BenchError for an unknown or senseless one."""
    return checked("fine_tuning", settings, DEFAULTS, CHOICES)


def fine_tune(
    model: nn.Module,
    split: Dataset,
    settings: Mapping[str, Any],
    seed: int,
    *,
    device: str,
    checkpoint: Path,
    progress: Callable[[int, int, Mapping[str, float]], None],
    should_stop: Callable[[], bool],
    checkpoint_seconds: float = 60.0,
) -> float:
    """Train `model` in place on a split of pictures float32 [C, H, W] in [0, 1]; returns the last loss, smoothed.

    An existing checkpoint is continued. Raises smi.Interrupted, with the state saved, when told to stop, and
    smi.NonFiniteLoss before a step that would spread NaN.
    """
    batch, pictures = settings["batch_size"], len(split)
    if batch > pictures:
        raise BenchError(
            f"batch_size is {batch}, but there are {pictures} training pictures; allowed: up to {pictures}"
        )
    total = settings["epochs"] * (pictures // batch)
    model.to(device).requires_grad_(False)
    trained = _trained(model, settings["train"])
    optimiser = torch.optim.AdamW(trained, settings["lr"], weight_decay=settings["weight_decay"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, cosine(settings["warmup"], total))
    first, smooth, _ = resume(checkpoint, model, optimiser, schedule)
    kept_at = time.monotonic()
    model.train(settings["train"] == "all")
    mean, std = normalisation(model)
    for step, (pictures, labels) in enumerate(_batches(split, batch, seed, first, total), first):
        if should_stop():
            keep(checkpoint, step, smooth, model, optimiser, schedule)
            raise smi.Interrupted(f"fine-tuning stopped at step {step} of {total}; it continues from there")
        if time.monotonic() - kept_at > checkpoint_seconds:
            keep(checkpoint, step, smooth, model, optimiser, schedule)
            kept_at = time.monotonic()
        shown = augment(pictures, settings["flip"], settings["shift"], seeded(seed, 1, step)).to(device)
        torch.manual_seed(seed * 1_000_003 + step)  # dropout and stochastic depth, where a model has them
        with autocast(torch.device(device), settings["precision"]):
            logits = model((shown - mean) / std)
        loss = F.cross_entropy(logits.float(), labels.to(device))
        value = loss.item()
        if not math.isfinite(value):
            raise smi.NonFiniteLoss(
                f"fine-tuning: the loss is {value} at step {step} of {total} with lr {settings['lr']:g}: lower it"
            )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, settings["clip"])
        optimiser.step()
        schedule.step()
        smooth = value if smooth is None else 0.98 * smooth + 0.02 * value
        progress(step + 1, total, {"loss": smooth})
    model.eval().requires_grad_(True)
    return smooth


def augment(pictures: Tensor, flip: float, shift: int, generator: torch.Generator) -> Tensor:
    """Pictures [B, C, H, W], each mirrored with probability `flip` and moved by up to `shift` pixels each way."""
    pictures = random_flip(pictures, flip, generator)
    return random_shift(pictures, shift, generator) if shift else pictures


def _trained(model: nn.Module, train: str) -> list[nn.Parameter]:
    named = [p for name, p in model.named_parameters() if train == "all" or name.startswith(HEADS)]
    for parameter in named:
        parameter.requires_grad_(True)
    return named


def _batches(
    split: Dataset, batch: int, seed: int, first: int, total: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of steps first..total-1, decoded by several threads; each epoch has an order of its own."""
    steps = len(split) // batch

    def order() -> Iterator[list[int]]:
        for step in range(first, total):
            epoch, place = divmod(step, steps)
            if place == 0 or step == first:
                shuffled = torch.randperm(len(split), generator=seeded(seed, 0, epoch)).tolist()
            yield shuffled[place * batch : (place + 1) * batch]

    yield from load(split, batch, order=order())

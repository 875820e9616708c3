"""Scoring models on a split: top-1, and how far another model's logits are from a reference's.

Shapes: B pictures, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import smi
from bench.datasets import batches
from bench.errors import BenchError
from bench.tasks import answers
from smi.published import normalise
from smi.vit import normalisation

BATCH = 128  # pictures scored together; scores do not depend on it beyond rounding
Progress = Callable[[int, int, Mapping[str, float]], None]


@torch.no_grad()
def top1(
    model: nn.Module,
    split: Dataset,
    device: str,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> float:
    """Share (%) of the split's pictures whose label is the greatest logit."""
    right = answered_right(model, split, device, progress, should_stop)
    return 100 * int(right.sum()) / len(right)


@torch.no_grad()
def answered_right(
    model: nn.Module,
    split: Dataset,
    device: str,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> np.ndarray:
    """Of each picture of the split, whether its label is the greatest logit: bool [N]."""
    right: list[bool] = []
    for image, labels in _normalised(model, split, device, should_stop):
        right += (_logits(model, image, "the model").argmax(1) == labels).tolist()
        if progress is not None:
            progress(len(right), len(split), {"top1": 100 * sum(right) / len(right)})
    return np.array(right)


_known: dict[str, list[Tensor]] = {}  # logits of the reference of the last comparison, batch by batch


@torch.no_grad()
def compare(
    reference: nn.Module,
    other: nn.Module,
    split: Dataset,
    device: str,
    progress: Progress,
    should_stop: Callable[[], bool],
    keep_zero: bool = False,
    identity: str | None = None,
) -> dict[str, Any]:
    """`other` beside `reference` on the split, both fed whole pictures normalised as the reference wants them.

    keep_zero: see smi.published.normalise; the reference's pictures are normalised in the same way.
    identity: names reference, split and keep_zero; the next comparison of the same name in this process takes the
        reference's logits from this one.
    top1, reference_top1, agreement (same greatest logit), all in %; logit_error: ||other - reference|| over
    ||reference||, Frobenius norms over all pictures' logits; pictures: their number; right: which of them `other`
    answers right (bench.tasks.answers).
    """
    reference_right = agree = done = 0
    right: list[bool] = []
    error = norm = 0.0
    known, said = _known.get(identity), []
    for index, (image, labels) in enumerate(_normalised(reference, split, device, should_stop, keep_zero)):
        expected = _logits(reference, image, "the full-precision model") if known is None else known[index]
        found = _logits(other, image, "the quantized model")
        said.append(expected)
        right += (found.argmax(1) == labels).tolist()
        reference_right += (expected.argmax(1) == labels).sum().item()
        agree += (found.argmax(1) == expected.argmax(1)).sum().item()
        error += (found - expected).double().square().sum().item()
        norm += expected.double().square().sum().item()
        done += len(labels)
        progress(done, len(split), {"top1": 100 * sum(right) / done})
    if identity is not None:
        _known.clear()
        _known[identity] = said
    if not norm:
        raise smi.NonFiniteLoss("the full-precision model's logits are all 0: no error is relative to them")
    return {
        "top1": 100 * sum(right) / done,
        "reference_top1": 100 * reference_right / done,
        "agreement": 100 * agree / done,
        "logit_error": math.sqrt(error / norm),
        "pictures": done,
        answers.FIELD: answers.pack(np.array(right)),
    }


def _logits(model: nn.Module, image: Tensor, who: str) -> Tensor:
    """The model's logits [B, K]. Raises NonFiniteLoss: NaN has no greatest entry, so such a model has no top-1."""
    logits = model(image)
    if not torch.isfinite(logits).all():
        raise smi.NonFiniteLoss(
            f"{who}'s logits are NaN or infinite: it cannot be scored; are its weights finite?"
        )
    return logits


def _normalised(
    model: nn.Module,
    split: Dataset,
    device: str,
    should_stop: Callable[[], bool] | None,
    keep_zero: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised pictures [B, C, H, W] and labels [B] on the device."""
    mean, std = (values.to(device) for values in normalisation(model))
    if not len(split):
        raise BenchError("the split holds no pictures to score on")
    for pictures, labels in batches(split, BATCH):
        if should_stop is not None and should_stop():
            raise smi.Interrupted("stopped while scoring; scoring starts anew")
        yield normalise(pictures.to(device), mean, std, keep_zero), labels.to(device)

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

BATCH, GPU_BATCH = 128, 512  # pictures scored together; scores do not depend on it beyond rounding
# Batches between two looks at what is counted on a GPU, each of which waits for it. So many may wait for it, too.
LOOK = 4
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
    right, hits, looks = [], _zero(device), _Looks(device, len(split))
    for image, labels in _normalised(model, split, device, should_stop):
        right.append(looks.at(model(image), "the model").argmax(1) == labels)
        hits += right[-1].sum()
        if looks.due(len(labels)) and progress is not None:
            progress(looks.done, len(split), {"top1": 100 * int(hits) / looks.done})
    return torch.cat(right).cpu().numpy()


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
    right, looks = [], _Looks(device, len(split))
    hits, reference_hits, agree = _zero(device), _zero(device), _zero(device)
    error, norm = _zero(device, torch.float64), _zero(device, torch.float64)
    known, said = _known.get(identity), []
    for index, (image, labels) in enumerate(_normalised(reference, split, device, should_stop, keep_zero)):
        if known is None:
            expected = looks.at(reference(image), "the full-precision model")
        else:
            expected = known[index]
        found = looks.at(other(image), "the quantized model")
        said.append(expected)
        right.append(found.argmax(1) == labels)
        hits += right[-1].sum()
        reference_hits += (expected.argmax(1) == labels).sum()
        agree += (found.argmax(1) == expected.argmax(1)).sum()
        error += (found - expected).double().square().sum()
        norm += expected.double().square().sum()
        if looks.due(len(labels)):
            progress(looks.done, len(split), {"top1": 100 * int(hits) / looks.done})
    if identity is not None:
        _known.clear()
        _known[identity] = said
    if not norm:
        raise smi.NonFiniteLoss("the full-precision model's logits are all 0: no error is relative to them")
    return {
        "top1": 100 * int(hits) / looks.done,
        "reference_top1": 100 * int(reference_hits) / looks.done,
        "agreement": 100 * int(agree) / looks.done,
        "logit_error": math.sqrt(error.item() / norm.item()),
        "pictures": looks.done,
        answers.FIELD: answers.pack(torch.cat(right).cpu().numpy()),
    }


class _Looks:
    """When what is counted on the device is looked at, and whether all logits up to there were finite: NaN has no
    greatest entry, so a model with such logits has no top-1."""

    def __init__(self, device: str, total: int) -> None:
        self.every = 1 if device == "cpu" else LOOK
        self.total, self.done, self.batches = total, 0, 0
        self._finite: list[tuple[Tensor, str]] = []

    def at(self, logits: Tensor, who: str) -> Tensor:
        """The logits, noted."""
        self._finite.append((torch.isfinite(logits).all(), who))
        return logits

    def due(self, count: int) -> bool:
        """Whether to look after a batch of `count` pictures. Raises NonFiniteLoss then, if a logit was not finite."""
        self.done, self.batches = self.done + count, self.batches + 1
        if self.batches % self.every and self.done < self.total:
            return False
        for finite, who in self._finite:
            if not finite:
                raise smi.NonFiniteLoss(
                    f"{who}'s logits are NaN or infinite: it cannot be scored; are its weights finite?"
                )
        self._finite.clear()
        return True


def _zero(device: str, kind: torch.dtype = torch.int64) -> Tensor:
    return torch.zeros((), dtype=kind, device=device)


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
    size = GPU_BATCH if device.startswith("cuda") else BATCH
    for pictures, labels in batches(split, size, device):
        if should_stop is not None and should_stop():
            raise smi.Interrupted("stopped while scoring; scoring starts anew")
        yield normalise(pictures, mean, std, keep_zero), labels

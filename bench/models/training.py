"""Training a teacher from scratch: AdamW, cosine with warm-up, clipped gradients, random shifts and flips.

It learns the labels, or the logits of a tutor: another model that has learnt the same pictures before. What is
measured of that, and what is not, is said in docs/cifar.md.

Deterministic and resumable at any step: the order of the pictures, their shifts and flips are drawn from the seed
and the step alone, so a checkpoint is the model, the optimiser and the step.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import smi
from bench.errors import BenchError
from bench.grid.spelling import one_spelling
from smi.device import PRECISIONS, autocast
from smi.execution import Recorded
from smi.objectives import kd_loss

DEFAULTS: dict[str, Any] = {
    "epochs": 40,
    "batch_size": 32,
    "lr": 2e-3,
    "betas": (0.9, 0.99),
    "weight_decay": 0.05,
    "warmup": 0.1,  # share of the steps
    "clip": 1.0,  # norm of all gradients
    "shift": 2,  # pixels, up to which a picture is moved in each direction
    "flip": 0.0,  # probability of mirroring a picture left-right
    "label_smoothing": 0.0,
    "precision": "fp32",  # or "bf16": autocast; weights and their moments stay float32
    "temperature": 2.0,  # of both softmaxes, where a tutor teaches
    "mix": 0.0,  # share of the batches, taught by a tutor, in which each picture is blended with another one
}
CHOICES = {"precision": PRECISIONS}
POSITIVE = ("epochs", "batch_size")
SHARES = ("betas", "warmup", "flip", "label_smoothing", "mix")
# Part of what `expand` gives only where they are not the default: results from before they were there stay valid.
LATER = ("flip", "label_smoothing", "precision", "temperature", "mix")


def expand(settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a training, as JSON values. Raises BenchError for an unknown or senseless one."""
    chosen = checked("teacher training", settings, DEFAULTS, CHOICES)
    chosen["betas"] = list(chosen["betas"])
    return {k: v for k, v in chosen.items() if k not in LATER or v != DEFAULTS[k]}


def checked(
    what: str, settings: Mapping[str, Any], defaults: Mapping[str, Any], choices: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """`defaults`, changed by `settings`: of the same kinds, not negative, shares at most 1. Raises BenchError."""
    for key, value in settings.items():
        if key not in defaults:
            raise BenchError(f"{what}: unknown setting {key!r}; allowed: {', '.join(defaults)}")
        allowed = ", ".join(choices[key]) if key in choices else _refusal(key, value, defaults[key])
        if allowed and value not in choices.get(key, ()):
            raise BenchError(f"{what}: {key} is {value!r}; allowed: {allowed}")
    # A default keeps its own spelling: keys of published grids hold a given 1 where the default is 1.0.
    return {**defaults, **{key: one_spelling(value) for key, value in settings.items()}}


def _refusal(key: str, value: Any, default: Any) -> str:
    """What a number may be, if the value is not; "" if it is."""
    several = isinstance(default, tuple)
    numbers = value if several and isinstance(value, (list, tuple)) else [value]
    whole = isinstance(default, int)
    low, high = int(key in POSITIVE), 1 if key in SHARES else math.inf
    right = len(numbers) == (len(default) if several else 1) and all(
        not isinstance(v, bool) and isinstance(v, int if whole else (int, float)) and low <= v <= high
        for v in numbers
    )
    kind = "a whole number" if whole else f"{len(default)} numbers" if several else "a number"
    return "" if right else f"{kind} from 0 to 1" if key in SHARES else f"{kind}, at least {low}"


def train(
    model: nn.Module,
    pictures: Tensor,
    labels: Tensor,
    settings: Mapping[str, Any],
    seed: int,
    *,
    normalise: Callable[[Tensor], Tensor],
    device: str,
    checkpoint: Path,
    progress: Callable[[int, int, Mapping[str, float]], None],
    should_stop: Callable[[], bool],
    tutor: Callable[[Tensor], Tensor] | None = None,
    checkpoint_seconds: float = 30.0,
) -> list[float]:
    """Train `model` in place on pictures [N, C, H, W] in [0, 1] and labels [N]; returns the smoothed loss at the end of
    each epoch.

    settings: as `expand` gives them. tutor: pictures in [0, 1] -> the logits to learn, in place of the labels.

    An existing checkpoint is continued. Raises smi.Interrupted, with the state saved, when told to stop.
    """
    settings = {**DEFAULTS, **settings}
    count, batch = len(labels), settings["batch_size"]
    steps_per_epoch = count // batch
    if not steps_per_epoch:
        raise BenchError(
            f"teacher training: batch_size is {batch}; allowed: at most the {count} training pictures"
        )
    total = settings["epochs"] * steps_per_epoch
    model.to(device).train()
    pictures, labels = pictures.to(device), labels.to(device)
    optimiser = torch.optim.AdamW(
        *(model.parameters(), settings["lr"], tuple(settings["betas"])),
        weight_decay=settings["weight_decay"],
        fused=True if torch.device(device).type == "cuda" else None,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, cosine(settings["warmup"], total))
    first, smooth, curve = resume(checkpoint, model, optimiser, schedule)
    gradients = Gradients(model, settings, normalise, tutor)
    kept_at = time.monotonic()
    for step in range(first, total):
        if should_stop():
            keep(checkpoint, step, smooth, model, optimiser, schedule, curve)
            raise smi.Interrupted(f"training stopped at step {step} of {total}; it continues from there")
        if time.monotonic() - kept_at > checkpoint_seconds:
            keep(checkpoint, step, smooth, model, optimiser, schedule, curve)
            kept_at = time.monotonic()
        shown, wanted = draw(pictures, labels, settings, seed, step)
        if tutor is not None:
            shown = _mixed(shown, settings["mix"], seeded(seed, 2, step))
        loss = gradients(shown, wanted)
        optimiser.step()
        value = loss.item()
        schedule.step()
        if not math.isfinite(value):
            raise smi.NonFiniteLoss(
                f"teacher training: the loss is {value} at step {step}, lr {settings['lr']}"
            )
        smooth = value if smooth is None else 0.98 * smooth + 0.02 * value
        if (step + 1) % steps_per_epoch == 0:
            curve = [*curve, smooth]
        progress(step + 1, total, {"loss": smooth})
    model.eval()
    return curve


def draw(
    pictures: Tensor, labels: Tensor, settings: Mapping[str, Any], seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """The batch of a step: pictures [B, C, H, W], shifted and flipped, and their labels [B], where all of them lie."""
    count, batch = len(labels), settings["batch_size"]
    epoch, place = divmod(step, count // batch)
    chosen = _order(count, seed, epoch)[place * batch : (place + 1) * batch].to(pictures.device)
    generator = seeded(seed, 1, step)
    shown = random_shift(pictures[chosen], settings["shift"], generator)
    if settings["flip"]:
        shown = random_flip(shown, settings["flip"], generator)
    return shown, labels[chosen]


@lru_cache(maxsize=1)  # drawing it takes longer than a step of a small model on a GPU
def _order(count: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's pictures."""
    return torch.randperm(count, generator=seeded(seed, 0, epoch))


def _mixed(shown: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """In a share of the batches each picture is blended with another one (mixup), as much as is drawn for the batch."""
    often, weight = torch.rand(2, generator=generator).tolist()
    if often >= share:
        return shown
    other = torch.randperm(len(shown), generator=generator).to(shown.device)
    return torch.lerp(shown, shown[other], weight)


class Gradients:
    """The loss of a batch, with its clipped gradients left in the model.

    On a GPU, where launching takes longer than computing such small models, the launches are recorded once as a CUDA
    graph and replayed; not of models with batch normalisation, whose statistics a recording's trial passes would move.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Mapping[str, Any],
        normalise: Callable[[Tensor], Tensor],
        tutor: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.model, self.settings, self.normalise, self.tutor = model, settings, normalise, tutor
        steady = not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        self._records = steady and next(model.parameters()).is_cuda
        self._recorded: Recorded | None = None

    def __call__(self, shown: Tensor, labels: Tensor) -> Tensor:
        """shown: float [B, C, H, W]; labels: int64 [B], which a tutor's logits stand in for. A scalar."""
        if not self._records:
            return self._compute(shown, labels)
        if self._recorded is None:
            self._recorded = Recorded(self._compute, (shown, labels))
        return self._recorded(shown, labels)

    def _compute(self, shown: Tensor, labels: Tensor) -> Tensor:
        settings = self.settings
        if self.tutor is not None:
            with torch.no_grad():
                wanted = self.tutor(shown).float()
        with autocast(shown.device, settings["precision"]):
            logits = self.model(self.normalise(shown)).float()
        if self.tutor is not None:
            loss = kd_loss(logits, wanted, settings["temperature"])
        else:
            loss = F.cross_entropy(logits, labels, label_smoothing=settings["label_smoothing"])
        self.model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), settings["clip"])
        return loss.detach()


def cosine(warmup: float, total: int) -> Callable[[int], float]:
    """Share of the learning rate at a step: linear over the share `warmup` of all steps, then a cosine to zero."""
    rising = max(1, round(warmup * total))

    def rate(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))

    return rate


def keep(
    checkpoint: Path,
    step: int,
    smooth: float | None,
    model: nn.Module,
    optimiser,
    schedule,
    curve: Sequence[float] = (),
) -> None:
    """Write the state after `step` steps, whole or not at all. smooth: the loss, smoothed; curve: that of every
    epoch."""
    state = {
        "step": step,
        "smooth": smooth,
        "curve": list(curve),
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
    }
    unfinished = checkpoint.with_name(checkpoint.name + ".part")
    torch.save(state, unfinished)
    os.replace(unfinished, checkpoint)


def resume(checkpoint: Path, model: nn.Module, optimiser, schedule) -> tuple[int, float | None, list[float]]:
    """Load what `keep` wrote, if it is there; (steps done, smoothed loss, that of each epoch). CheckpointError if it is
    damaged.

    It is read to the CPU; the model and the optimiser move each part to where they want it.
    """
    if not checkpoint.exists():
        return 0, None, []
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        return state["step"], state["smooth"], state["curve"]
    except Exception as error:  # damaged: the folder is this task's own, so nothing else can be meant
        raise smi.CheckpointError(
            f"{checkpoint} cannot be continued from ({error}); remove it to start anew"
        ) from None


def seeded(seed: int, stream: int, index: int) -> torch.Generator:
    """Random numbers of one step (or epoch) of one stream: a resumed training draws as one that ran through."""
    return torch.Generator().manual_seed((seed * 2 + stream) * 1_000_003 + index)


def random_shift(pictures: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Move every picture [N, C, H, W] by up to `most` pixels each way; what comes in is black."""
    count, _, height, width = pictures.shape
    moves = torch.randint(0, 2 * most + 1, (2, count), generator=generator)
    padded = F.pad(pictures, [most] * 4)
    rows = (moves[0][:, None] + torch.arange(height)).to(pictures.device)
    columns = (moves[1][:, None] + torch.arange(width)).to(pictures.device)
    which = torch.arange(count, device=pictures.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_flip(pictures: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Mirror each picture [N, C, H, W] left-right with this probability."""
    mirrored = torch.rand(len(pictures), 1, 1, 1, generator=generator) < chance
    return torch.where(mirrored.to(pictures.device), pictures.flip(3), pictures)

"""Early inversion stopping: when how many patches stop, and by which score (paper section 3; smi/scores.py).

A score is a callable `(model, image, kept, generator) -> importance [B, K]`, greater means "stays". It may call the
model, `model(image, kept)` -> logits, and ask for gradients to the image. Add one by putting it into SCORES, or
give the callable itself to `smi.Stopping(score=...)`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from smi import scores
from smi.adapters import Adapted
from smi.checks import is_number, is_whole, plain
from smi.errors import InvalidSetting, NonFiniteLoss

Score = Callable[[Adapted, Tensor, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Stopping:
    """Drop a fraction of the patches still in, at given iterations.

    at: iterations before which patches stop, strictly increasing, each >= 1.
    drop: one fraction for all stops or one for each, in (0, 1), of the patches still in.
    score: ranks the patches at a stop: a name of SCORES or a callable; beside a checkpoint one with a name of its own.
    reenter_every: None, as in the paper: a patch that has stopped never comes back. Else (ours, no paper's) all patches
        of the image are ranked anew every so many iterations from the first stop on, and at each stop: those that come
        back go on from the pixels and moments of Adam with which they stopped. How many are in follows `at` and `drop`
        as before; each ranking feeds the whole image forward.
    The default is the paper's schedule: 196 -> 137 -> 95 -> 66 -> 46 patches ("77%").
    Raises InvalidSetting for a schedule that makes no sense.
    """

    at: tuple[int, ...] = (50, 100, 200, 300)
    drop: float | tuple[float, ...] = 0.3
    score: str | Score = "cls_attention"
    reenter_every: int | None = None
    parts: ClassVar[int] = 1  # images that one run gives

    def __post_init__(self) -> None:
        at, drop = plain(self.at), plain(self.drop)
        at = at if isinstance(at, tuple) else (at,)
        drop = drop if isinstance(drop, tuple) else (drop,) * len(at)
        if not at:
            raise InvalidSetting("stopping.at is empty: give at least one iteration, or no stopping at all")
        if not all(is_whole(t) and t >= 1 for t in at):
            raise InvalidSetting(f"stopping.at is {list(at)}: every stop must be a whole number >= 1")
        if any(later <= earlier for earlier, later in itertools.pairwise(at)):
            raise InvalidSetting(f"stopping.at is {list(at)}: stops must increase strictly")
        if len(drop) != len(at):
            raise InvalidSetting(
                f"stopping.drop has {len(drop)} fractions for {len(at)} stops: give one or as many"
            )
        if not all(is_number(r) and 0 < r < 1 for r in drop):
            raise InvalidSetting(
                f"stopping.drop is {list(drop)}: every fraction must lie strictly between 0 and 1"
            )
        every = plain(self.reenter_every)
        if every is not None and (not is_whole(every) or every < 1):
            raise InvalidSetting(
                f"stopping.reenter_every is {self.reenter_every!r}; allowed: None, or a whole number >= 1"
            )
        find_score(self.score)
        object.__setattr__(self, "reenter_every", every)
        object.__setattr__(self, "at", tuple(at))
        object.__setattr__(self, "drop", tuple(float(r) for r in drop))

    @classmethod
    def paper(cls, score: str | Score = "cls_attention") -> Stopping:
        """The paper's schedule, for inversions of more than 300 iterations: "77%", 46 of 196 patches at the end."""
        return cls((50, 100, 200, 300), 0.3, score)

    @property
    def fractions(self) -> tuple[float, ...]:
        """What is dropped at each stop."""
        return self.drop if isinstance(self.drop, tuple) else (self.drop,) * len(self.at)

    def kept_counts(self, patches: int) -> tuple[int, ...]:
        """Patches that go on after each stop: n -> int(n * (1 - r)); InvalidSetting if none is left."""
        counts = []
        for fraction in self.fractions:
            # the tiny addend keeps 10 * (1 - 0.9) at 1: int() alone would see 0.9999999999999998
            patches = int(patches * (1 - fraction) + 1e-9)
            counts.append(patches)
        if counts[-1] < 1:
            raise InvalidSetting(
                f"stopping drops every patch ({list(self.fractions)} leaves {counts}): at least 1 must stay"
            )
        return tuple(counts)

    def rankings(self, iterations: int, patches: int) -> dict[int, int]:
        """Before which iterations patches are ranked, and how many of them go on then."""
        stops = dict(zip(self.at, self.kept_counts(patches), strict=True))
        if self.reenter_every is None:
            return stops
        again = range(self.at[0], iterations, self.reenter_every)
        return {t: self.count_at(t, patches) for t in sorted({*again, *stops})}

    def sparsity(self, patches: int) -> float:
        """Fraction of the patches that have stopped at the end, e.g. 1 - 46/196."""
        return 1 - self.kept_counts(patches)[-1] / patches

    def check(self, iterations: int) -> None:
        """Raise InvalidSetting unless every stop lies within the run."""
        if self.at[-1] >= iterations:
            raise InvalidSetting(
                f"stopping.at is {list(self.at)}: the last stop must come before the end ({iterations} iterations)"
            )

    def resolved(self, iterations: int) -> Stopping:
        """Itself: its iterations do not depend on the run's length."""
        return self

    def shown(self, patches: int) -> int:
        """Patches of each image at the end."""
        return self.kept_counts(patches)[-1]

    def stay(self, kept: Tensor, importance: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The patches that go on: `most_important`."""
        return most_important(kept, importance, count)

    def to_json(self) -> dict[str, Any]:
        """The schedule as JSON values, without its score."""
        again = {} if self.reenter_every is None else {"reenter_every": self.reenter_every}
        return {"at": list(self.at), "drop": list(self.fractions)} | again

    def count_at(self, iteration: int, patches: int) -> int:
        """Patches still in during an iteration (the first is 0)."""
        passed = sum(iteration >= stop for stop in self.at)
        return self.kept_counts(patches)[passed - 1] if passed else patches


SCORES: dict[str, Score] = {
    "cls_attention": scores.cls_attention,
    "random": scores.random,
    "least_attention": scores.least_attention,
    "attention_rollout": scores.attention_rollout,
    "gradient_norm": scores.gradient_norm,
    "pixel_contrast": scores.pixel_contrast,
}


def find_score(score: str | Score) -> Score:
    """The score of that name, or the callable itself; InvalidSetting names what there is."""
    if callable(score):
        return score
    if score not in SCORES:
        raise InvalidSetting(
            f"unknown score {score!r}: allowed are {', '.join(sorted(SCORES))}, or a callable"
        )
    return SCORES[score]


def ranked(kept: Tensor, importance: Tensor) -> Tensor:
    """Positions in the rows of `kept` from the most to the least important, [B, K].

    Ties go to the lower patch index, so the order does not depend on the sorting algorithm. Refuses what a score
    returned where patches cannot be ranked by it.
    """
    if importance.shape != kept.shape:
        raise InvalidSetting(
            f"the score returned shape {list(importance.shape)}, expected {list(kept.shape)}"
        )
    if not torch.isfinite(importance).all():
        raise NonFiniteLoss("the score of a stop is NaN or infinite: patches cannot be ranked")
    return torch.sort(importance, dim=1, descending=True, stable=True).indices


def most_important(kept: Tensor, importance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cut kept sets to their `count` most important patches.

    kept int64 [B, K] sorted, importance [B, K] -> (kept [B, count] sorted, their positions in the old rows).
    """
    positions = ranked(kept, importance)[:, :count].sort(dim=1).values
    return kept.gather(1, positions), positions

"""Patch Rebirth Inversion: patches that leave a running inversion are finished sparse images (arXiv 2509.23235).

Stopping (smi/stopping.py) throws the least important patches away; here the most important ones leave, as an image of
their own, and the others go on. One trajectory so gives several images that share target and start and no patch.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from smi.checks import is_whole, plain
from smi.errors import InvalidSetting
from smi.stopping import Score, Stopping, find_score, ranked


@dataclass(frozen=True)
class Rebirth:
    """At equal distances, or before the iterations `at`, the most important P // parts patches still in leave.

    parts: images that one trajectory gives; 1 is dense inversion. With T iterations and P patches they leave before
        iterations k * (T // parts), k = 1 .. parts - 1. What is in at the end is the last image; where `parts` does
        not divide P more patches are in then, and it shows the P // parts that were ranked highest of them at the last
        leaving, so that all images have equally many (the method's text would give it all).
    at: parts - 1 iterations of one's own, strictly increasing, each >= 1.
    score: as of smi.Stopping; "random" is the control.
    `count` of smi.invert is of images: ceil(count / parts) trajectories run, and `targets` are one for each of these.
    Raises InvalidSetting for a schedule that makes no sense.
    """

    parts: int = 4
    at: tuple[int, ...] | None = None
    score: str | Score = "cls_attention"

    def __post_init__(self) -> None:
        parts, at = plain(self.parts), plain(self.at)
        if not is_whole(parts) or parts < 1:
            raise InvalidSetting(f"rebirth.parts is {self.parts!r}; allowed: a whole number >= 1")
        if at is not None:
            at = at if isinstance(at, tuple) else (at,)
            rising = all(earlier < later for earlier, later in itertools.pairwise(at))
            if not all(is_whole(t) and t >= 1 for t in at) or not rising:
                raise InvalidSetting(
                    f"rebirth.at is {list(at)}; allowed: whole numbers >= 1 that increase strictly"
                )
            if len(at) != parts - 1:
                raise InvalidSetting(
                    f"rebirth.at has {len(at)} iterations; {parts} parts leave at {parts - 1}, the last at the end"
                )
        find_score(self.score)
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "at", at)

    def resolved(self, iterations: int) -> Rebirth:
        """The same with `at` spelled out for a run of so many iterations; InvalidSetting where these are too few."""
        if self.at is not None:
            return self
        step = iterations // self.parts
        if step < 1:
            raise InvalidSetting(
                f"rebirth.parts is {self.parts}, more than the {iterations} iterations; allowed: 1 to {iterations}"
            )
        return replace(self, at=tuple(k * step for k in range(1, self.parts)))

    def check(self, iterations: int) -> None:
        """Raise InvalidSetting unless every leaving lies within the run."""
        if self.at and self.at[-1] >= iterations:
            raise InvalidSetting(
                f"rebirth.at is {list(self.at)}: the last must come before the end ({iterations} iterations)"
            )

    def shown(self, patches: int) -> int:
        """Patches of each finished image, P // parts; InvalidSetting if there is none for each."""
        if self.parts > patches:
            raise InvalidSetting(
                f"rebirth.parts is {self.parts}; allowed: 1 to {patches}, one patch for each"
            )
        return patches // self.parts

    def kept_counts(self, patches: int) -> tuple[int, ...]:
        """Patches that go on after each leaving."""
        leaving = self.shown(patches)
        return tuple(patches - k * leaving for k in range(1, self.parts))

    def rankings(self, iterations: int, patches: int) -> dict[int, int]:
        """Before which iterations patches are ranked, and how many of them go on then."""
        return dict(zip(self.at or (), self.kept_counts(patches), strict=True))

    def sparsity(self, patches: int) -> float:
        """Fraction of the patches that an image does not show, e.g. 1 - 49/196."""
        return 1 - self.shown(patches) / patches

    def stay(self, kept: Tensor, importance: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The `count` least important patches and their positions; shapes as of smi.stopping.most_important."""
        order = ranked(kept, importance)
        positions = order[:, order.shape[1] - count :].sort(dim=1).values
        return kept.gather(1, positions), positions

    def leave(self, kept: Tensor, importance: Tensor, count: int, last: bool) -> list[Tensor]:
        """The sets [B, P // parts], sorted, of the images that are known now: the one that leaves, and at the last
        leaving also the one that ends the run. count: patches that go on."""
        order = ranked(kept, importance)
        size = kept.shape[1] - count
        sets = [order[:, :size], order[:, size : 2 * size]] if last else [order[:, :size]]
        return [kept.gather(1, positions).sort(dim=1).values for positions in sets]

    def to_json(self) -> dict[str, Any]:
        """The schedule as JSON values, without its score."""
        return {"rebirth": self.parts, "at": None if self.at is None else list(self.at)}


Schedule = Stopping | Rebirth


def schedule_of(values: dict[str, Any], score: str | Score = "cls_attention") -> Schedule:
    """What `to_json` of a Stopping or a Rebirth gave."""
    at = values["at"]
    if "rebirth" in values:
        return Rebirth(values["rebirth"], None if at is None else tuple(at), score)
    return Stopping(tuple(at), tuple(values["drop"]), score, values.get("reenter_every"))

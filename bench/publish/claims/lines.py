"""The lines of a scale: each a claim, a measure and a place, with its pairs, its effect and what is made of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.experiments import EXPERIMENTS, part
from bench.publish.claims import Claim, Measure
from bench.publish.claims.inference import LEVEL, Effect, effect, holm, needed
from bench.publish.manifest import Sheet

HOLDS, FAILS, SAME, OPEN = "holds", "does not hold", "no difference beyond the margin", "cannot be told"
ALL = "all"  # where nothing divides the pairs
PLACES = ("bits", "student")  # axes that always divide them; others do where they vary


@dataclass(frozen=True)
class Line:
    """differences: teacher -> of its pairs. insensitive: the margin exceeds all damage that there is to be seen."""

    claim: Claim
    measure: Measure
    where: str
    differences: Mapping[str, Sequence[float]]
    insensitive: bool = False

    @property
    def found(self) -> Effect:
        return effect(self.differences)

    @property
    def margin(self) -> float | None:
        return self.claim.margin if self.claim.margin is not None else self.measure.margin

    @property
    def apart(self) -> float:
        """p against what the claim says is not so: no difference, or one of the margin (both two-sided)."""
        bound = 0.0 if self.claim.margin is None else -self.measure.sign * self.claim.margin
        return self.found.apart(bound)

    @property
    def within(self) -> float:
        """p against a difference of the margin or more; 1 for claims that two rows are as good as each other."""
        if self.claim.margin is not None or self.measure.margin is None:
            return 1.0
        return self.found.within(self.measure.margin)

    @property
    def p(self) -> float:
        """At most one of the two nulls is true, so the smaller p needs no correction of its own."""
        return min(self.apart, self.within)


@dataclass(frozen=True)
class Judged:
    """A line's verdict. allowed: the level that Holm held it to (0: it came after one that failed). more: units (seeds
    of each teacher, or teachers) beyond those there are that would decide it; None where that is not known."""

    line: Line
    verdict: str
    allowed: float
    more: int | None = None


def all_claims() -> tuple[Claim, ...]:
    """The claims of every experiment."""
    return tuple(claim for experiment in EXPERIMENTS.values() for claim in part(experiment.claims))


def lines(sheets: Mapping[str, Sheet]) -> list[Line]:
    """Every distinct line that the sheets (by grid) have pairs for, in the order of the claims."""
    return [
        Line(claim, measure, where, found, _insensitive(sheets[claim.grid], claim, measure, where))
        for claim in all_claims()
        if claim.grid in sheets
        for measure in claim.measures
        for where, found in pairs(sheets[claim.grid], claim, measure).items()
    ]


def judge(found: Sequence[Line]) -> list[Judged]:
    """Verdicts of all lines of a page together, by Holm's levels."""
    return [
        _judged(line, level, len(found))
        for line, level in zip(found, holm([line.p for line in found]), strict=True)
    ]


def _judged(line: Line, level: float, count: int) -> Judged:
    effect_ = line.found
    if level and line.apart <= level:
        bound = 0.0 if line.claim.margin is None else -line.measure.sign * line.claim.margin
        better = (effect_.mean - bound) * line.measure.sign > 0
        return Judged(line, HOLDS if better else FAILS, level)
    if level:
        return Judged(line, SAME, level)
    if line.margin is None:
        return Judged(line, OPEN, level)
    units = needed(effect_, line.margin, LEVEL / count)
    return Judged(line, OPEN, level, None if units is None else max(1, units - effect_.units))


def pairs(sheet: Sheet, claim: Claim, measure: Measure) -> dict[str, dict[str, list[float]]]:
    """Place -> teacher -> differences, first less other, of every pair whose two tasks are done.

    A pair agrees in every axis but the method. Its teacher is its model, with the data set where there are several; its
    place is all the rest but the seed. Places that compare the very same tasks (seconds of inversions, whatever the
    bit-widths) are one.
    """
    cells = [entry["cell"] for entry in sheet.cells]
    vary = {axis for axis in _axes(cells) if len({cell.get(axis) for cell in cells}) > 1}
    found: dict[str, dict[tuple, dict[str, tuple[str, float]]]] = {}
    for entry in sheet.cells:
        cell, name = entry["cell"], entry["tasks"].get(measure.column, "")
        record = sheet.records.get(name)
        if cell["method"] in (claim.first, claim.other) and record is not None and record["status"] == "done":
            where = ", ".join(str(cell[axis]) for axis in _place(cell, vary)) or ALL
            figure = (name, measure.figure(record["metrics"]))
            found.setdefault(where, {}).setdefault(_pair(cell, vary), {})[cell["method"]] = figure
    made: dict[str, dict[str, list[float]]] = {}
    seen: dict[frozenset, str] = {}
    for where, by_pair in found.items():
        whole = {pair: both for pair, both in by_pair.items() if {claim.first, claim.other} <= set(both)}
        tasks = frozenset((both[claim.first][0], both[claim.other][0]) for both in whole.values())
        if not whole:
            continue
        if tasks in seen:
            made[ALL] = made.pop(seen[tasks])
            seen[tasks] = ALL
            continue
        seen[tasks] = where
        for (teacher, *_), both in whole.items():
            difference = both[claim.first][1] - both[claim.other][1]
            made.setdefault(where, {}).setdefault(teacher, []).append(difference)
    return made


def _axes(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(axis for cell in cells for axis in cell))


def _place(cell: Mapping[str, Any], vary: set[str]) -> Iterator[str]:
    for axis in cell:
        if axis in PLACES or (axis in vary and axis not in ("model", "dataset", "method", "seed")):
            yield axis


def _pair(cell: Mapping[str, Any], vary: set[str]) -> tuple:
    teacher = f"{cell['model']} on {cell['dataset']}" if "dataset" in vary else str(cell["model"])
    return (teacher, cell["seed"])


def _insensitive(sheet: Sheet, claim: Claim, measure: Measure, where: str) -> bool:
    """Whether no row of the place, of any method, has lost as much as the margin."""
    margin = claim.margin if claim.margin is not None else measure.margin
    if measure.damage is None or margin is None:
        return False
    cells = [entry["cell"] for entry in sheet.cells]
    vary = {axis for axis in _axes(cells) if len({cell.get(axis) for cell in cells}) > 1}
    lost = [-math.inf]
    for entry in sheet.cells:
        record = sheet.records.get(entry["tasks"].get(measure.column, ""))
        here = ", ".join(str(entry["cell"][axis]) for axis in _place(entry["cell"], vary)) or ALL
        if record is not None and record["status"] == "done" and where in (here, ALL):
            lost.append(measure.damage(record["metrics"]))
    return max(lost) < margin

"""Two results folders held against each other, cell by cell: do they agree within the spread of their seeds?

Cells that differ by the seed alone are one line for each figure. Seeds that both folders have are paired, which takes
out what a seed does in both; where fewer than two are shared, Welch's t test compares the means. p values are adjusted
by Holm's rule over all lines, as on the page of claims, so that a page of a hundred lines does not find five
differences where there is none.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.engine.store import Record
from bench.errors import BenchError
from bench.publish import told_apart
from bench.publish.manifest import Sheet, sheets

LEVEL = 0.05
# what machines should agree on; seconds they do not
FIGURES = ("top1", "agreement", "logit_error", "validation_top1")
WITHIN, OUTSIDE, UNTOLD = "within spread", "outside", "cannot be told"
SEED = "seed"
Group = tuple[tuple[str, Any], ...]  # a cell without its seed
Figures = dict[
    tuple[Group, str, str], dict[Any, Record]
]  # (cell, column, figure) -> by seed, the record with it


@dataclass(frozen=True)
class Line:
    """One figure of the cells that differ by the seed alone.

    first, other: the figures by seed. told_apart: seeds whose two models are told apart on the pictures that both
    were shown, of those where that is known. p: two-sided, None where one seed on a side says nothing of spread;
    adjusted: by Holm's rule. records: those of either side that the figures are from.
    """

    scale: str
    grid: str
    cell: Group
    figure: str
    first: Mapping[Any, float]
    other: Mapping[Any, float]
    told_apart: tuple[int, int] = (0, 0)
    p: float | None = None
    adjusted: float | None = None
    records: tuple[Sequence[Record], Sequence[Record]] = ((), ())

    @property
    def verdict(self) -> str:
        """WITHIN, OUTSIDE or UNTOLD."""
        if self.adjusted is not None:
            return OUTSIDE if self.adjusted < LEVEL else WITHIN
        # one seed on a side: the same figure agrees, another may be chance
        return WITHIN if list(self.first.values()) == list(self.other.values()) else UNTOLD

    @property
    def shared(self) -> list[Any]:
        """Seeds of both folders."""
        return _shared(self.first, self.other)

    @property
    def difference(self) -> float:
        """Other less first: of the seeds that both have where there are two, else of the means."""
        if len(self.shared) > 1:
            return statistics.fmean(self.other[seed] - self.first[seed] for seed in self.shared)
        return statistics.fmean(self.other.values()) - statistics.fmean(self.first.values())


@dataclass(frozen=True)
class Comparison:
    """lines: of all grids and scales that both have; only_first, only_other: `scale/grid` of the rest; missing: cells
    that have a finished figure on one side alone."""

    lines: Sequence[Line]
    only_first: Sequence[str]
    only_other: Sequence[str]
    missing: int
    pairs: Sequence[tuple[Sheet, Sheet]]

    @property
    def agrees(self) -> bool:
        """Whether no line lies outside."""
        return not any(line.verdict == OUTSIDE for line in self.lines)


def compare(first: Path, other: Path, grid: str | None = None) -> Comparison:
    """Hold the published grids of two folders, or the one named, against each other. BenchError if none is shared."""
    found = []
    for folder in (first, other):
        if not folder.is_dir():
            raise BenchError(f"{folder} is no folder; give two results folders, e.g. results and NEW")
        here = {(sheet.scale, sheet.grid): sheet for sheet in sheets(folder) if grid in (None, sheet.grid)}
        if not here:
            what = "published records" if grid is None else f"published records of the grid {grid}"
            raise BenchError(f"{folder} holds no {what} (SCALE/records/)")
        found.append(here)
    ours, theirs = found
    both = [key for key in ours if key in theirs]
    if not both:
        raise BenchError(f"nothing to compare: {first} has {_named(ours)}, {other} has {_named(theirs)}")
    pairs = [(ours[key], theirs[key]) for key in both]
    lines, missing = [], 0
    for one, two in pairs:
        found_lines, lacking = _lines(one, two)
        lines += found_lines
        missing += lacking
    return Comparison(
        lines=_adjusted(lines),
        only_first=[_name(key) for key in ours if key not in theirs],
        only_other=[_name(key) for key in theirs if key not in ours],
        missing=missing,
        pairs=pairs,
    )


def _name(key: tuple[str, str]) -> str:
    return "/".join(key)


def _named(found: Mapping[tuple[str, str], Sheet]) -> str:
    return ", ".join(map(_name, found))


def _lines(one: Sheet, two: Sheet) -> tuple[list[Line], int]:
    """The lines of a grid, and how many cells are finished on one side alone."""
    first, other = _figures(one), _figures(two)
    lines = []
    for place, ours in first.items():
        if theirs := other.get(place):
            cell, column, name = place
            values = [
                {seed: float(r["metrics"][name]) for seed, r in side.items()} for side in (ours, theirs)
            ]
            apart = _told_apart(ours, theirs) if name == "top1" else (0, 0)
            title = f"{column} {name}"
            line = Line(one.scale, one.grid, cell, title, *values, apart, _p_value(*values))
            lines.append(replace(line, records=([*ours.values()], [*theirs.values()])))
    return lines, len(_cells(first) ^ _cells(other))


def _figures(sheet: Sheet) -> Figures:
    """The finished records that hold each figure, by seed."""
    found: Figures = {}
    for entry in sheet.cells:
        cell = tuple(sorted((axis, value) for axis, value in entry["cell"].items() if axis != SEED))
        for column, record in _finished(entry["tasks"], sheet):
            for name in FIGURES:
                if isinstance(record["metrics"].get(name), int | float):
                    found.setdefault((cell, column, name), {})[entry["cell"].get(SEED)] = record
    return found


def _cells(figures: Figures) -> set[tuple[Group, str, Any]]:
    """(cell, column, seed) of everything that is finished."""
    return {(cell, column, seed) for (cell, column, _), by_seed in figures.items() for seed in by_seed}


def _finished(tasks: Mapping[str, str], sheet: Sheet) -> Iterator[tuple[str, Record]]:
    for column, name in tasks.items():
        record = sheet.records.get(name)
        if record is not None and record["status"] == "done":
            yield column, record


def _told_apart(ours: Mapping[Any, Record], theirs: Mapping[Any, Record]) -> tuple[int, int]:
    found = [told_apart.p_value(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    known = [p for p in found if p is not None]
    return sum(p <= told_apart.LEVEL for p in known), len(known)


def _p_value(first: Mapping[Any, float], other: Mapping[Any, float]) -> float | None:
    """Two-sided, that the means are one; None where a side has one seed and they are not the same seeds twice."""
    from scipy import stats  # takes a second

    from bench.publish.claims.inference import effect

    shared = _shared(first, other)
    if len(shared) > 1:
        differences = [other[seed] - first[seed] for seed in shared]
        same = all(math.isclose(one, 0, abs_tol=1e-9) for one in differences)
        return 1.0 if same else effect({"": differences}).apart()
    if min(len(first), len(other)) < 2:
        return None
    if len({*first.values(), *other.values()}) == 1:
        return 1.0
    return float(stats.ttest_ind([*first.values()], [*other.values()], equal_var=False).pvalue)


def _shared(first: Mapping[Any, float], other: Mapping[Any, float]) -> list[Any]:
    """Seeds of both folders."""
    return [seed for seed in first if seed in other]


def _adjusted(lines: Sequence[Line]) -> list[Line]:
    """With Holm's adjusted p values over all lines that have one."""
    from bench.publish.claims.inference import adjusted

    raised = iter(adjusted([line.p for line in lines if line.p is not None]))
    return [line if line.p is None else replace(line, adjusted=next(raised)) for line in lines]

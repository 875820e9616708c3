"""results/<scale>/README.md: claim by claim, which of the paper's statements hold at a scale whose figures can tell.

Every claim compares two rows of a table, pair by pair (same model, seed and bit-width). What is said follows from
the 95% confidence interval of the mean difference (Student's t over the pairs) alone, by one rule for all claims.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.engine import atomic
from bench.experiments import EXPERIMENTS, part
from bench.publish import manifest, scale_notes
from bench.publish.manifest import Sheet
from bench.publish.parts import NOT_RUN, footer, markdown, method_title
from bench.publish.words import plain

MARGIN = 0.5  # points of top-1 within which two rows count as equally good
HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told"
ALL = "all"  # where neither bit-widths nor students divide the pairs


@dataclass(frozen=True)
class Measure:
    """What is compared: figure(metrics of the task in `column`), in `unit`; more is better where `sign` is 1."""

    column: str
    name: str
    unit: str
    figure: Callable[[Mapping[str, Any]], float]
    sign: int = 1


@dataclass(frozen=True)
class Claim:
    """`first` is better than `other`, or no worse by more than `margin` where there is one."""

    statement: str
    grid: str
    first: str
    other: str
    measures: tuple[Measure, ...]
    margin: float | None = None


RULE = f"""\
Every line compares two rows pair by pair: same model, same seed of the images, and the same bit-width or student. The
difference is the mean over n pairs with its 95% confidence interval (Student's t). Pairs of one model share that
model, so the interval speaks of these models and not of all. **{HOLDS}**: the whole interval is on the claim's side.
**{FAILS}**: the whole interval is on the other side. **{OPEN}**: neither. A claim that two rows are as good as each
other holds where the whole interval lies above -{MARGIN:g} points, and does not where all of it lies below."""


def write(results: Path, found: Sequence[Sheet]) -> list[Path]:
    """Write the page of every scale that can tell (`about: judged`) and has a table among those found; their paths."""
    paths = []
    for scale in dict.fromkeys(sheet.scale for sheet in found if sheet.about.get("judged")):
        sheets = {sheet.grid: sheet for sheet in found if sheet.scale == scale}
        if any(claim.grid in sheets for claim in all_claims()):
            paths.append(results / scale / "README.md")
            atomic.write_text(paths[-1], text(scale, sheets))
    return paths


def all_claims() -> tuple[Claim, ...]:
    """The claims of every experiment."""
    return tuple(claim for experiment in EXPERIMENTS.values() for claim in part(experiment.claims))


def text(scale: str, sheets: Mapping[str, Sheet]) -> str:
    """The whole page, markdown. sheets: by grid."""
    guide = next((sheet.about["guide"] for sheet in sheets.values() if sheet.about.get("guide")), None)
    settings = f"; settings and how they were chosen: [{guide}](../../{guide})" if guide else ""
    parts = [
        f"# The paper's claims, {scale} scale",
        f"**{plain(scale_notes.line(scale, *sheets.values()))}**. Tables: {', '.join(_links(sheets))}; figures: "
        f"[figures](figures/README.md){settings}.",
        *_tables(sheets),
        RULE,
    ]
    parts += [f"## How {grid} was made\n\n{footer(sheet)}" for grid, sheet in sheets.items()]
    return "\n\n".join(parts) + "\n"


def _links(sheets: Mapping[str, Sheet]) -> Iterator[str]:
    for sheet in sheets.values():
        name = manifest.file_name(sheet)
        yield f"[{Path(name).stem}]({name})"


def _tables(sheets: Mapping[str, Sheet]) -> Iterator[str]:
    """For each grid: its claims, a line for each measure, a column for each bit-width or kind of student."""
    known = all_claims()
    for grid in dict.fromkeys(claim.grid for claim in known):
        claims = [claim for claim in known if claim.grid == grid]
        yield f"## From {grid}"
        yield markdown(_rows(claims, sheets[grid])) if grid in sheets else NOT_RUN


def _rows(claims: Sequence[Claim], sheet: Sheet) -> list[dict[str, str]]:
    found = [(c, m, pairs(sheet, c, m)) for c in claims for m in c.measures]
    columns = list(
        dict.fromkeys(where for _, _, differences in found for where in differences if where != ALL)
    )
    rows = []
    for claim, measure, differences in found:
        names = " less ".join(method_title(sheet, method) for method in (claim.first, claim.other))
        row = {"claim": claim.statement, "compared": names, "of": f"{measure.name} ({measure.unit})"}
        for where in columns or [ALL]:
            there = differences.get(where, differences.get(ALL))
            row[where] = NOT_RUN if there is None else judged(claim, measure, there)
        rows.append(row)
    return rows


def pairs(sheet: Sheet, claim: Claim, measure: Measure) -> dict[str, list[float]]:
    """Differences, first less other, of every pair whose two tasks are done: by bit-width or kind of student."""
    figures: dict[tuple[str, str], dict[tuple, float]] = {}
    for entry in sheet.cells:
        cell, record = entry["cell"], sheet.records.get(entry["tasks"].get(measure.column, ""))
        if cell["method"] in (claim.first, claim.other) and record is not None and record["status"] == "done":
            where = ALL if measure.column == "images" else str(cell.get("bits", cell.get("student", ALL)))
            pair = (cell["model"], cell["dataset"], cell["seed"])
            figures.setdefault((where, cell["method"]), {})[pair] = measure.figure(record["metrics"])
    differences = {}
    for where in dict.fromkeys(where for where, _ in figures):
        first, other = (figures.get((where, method), {}) for method in (claim.first, claim.other))
        both = [first[pair] - other[pair] for pair in first if pair in other]
        if both:
            differences[where] = both
    return differences


def judged(claim: Claim, measure: Measure, differences: Sequence[float]) -> str:
    """What the rule makes of the differences, with their mean, its interval, and their number."""
    mean, half = interval(differences)
    low, high = sorted((measure.sign * (mean - half), measure.sign * (mean + half)))
    bound = 0.0 if claim.margin is None else -claim.margin
    verdict = HOLDS if low > bound else FAILS if high < bound else OPEN
    spread = f" ± {half:.2f}" if math.isfinite(half) else ""
    return f"{verdict}: {mean:+.2f}{spread} ({len(differences)})"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of its 95% confidence interval; a single value leaves it infinite."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.inf
    from scipy.stats import t as student  # takes a second, and most results have no such page

    return mean, float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(
        len(values)
    )

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

from scipy.stats import t as student

from bench import atomic, scale_notes
from bench.tables import published
from bench.tables.parts import NOT_RUN, footer, markdown
from bench.tables.published import Sheet

SCALES = ("cifar", "cifar_gpu")  # those that can tell; digits cannot, the paper's has the paper's own figures
MARGIN = 0.5  # points of top-1 within which two rows count as equally good
HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told"


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


def at_first_score(metrics: Mapping[str, Any]) -> float:
    """The student's top-1 where it was first scored after it had begun to learn."""
    return next(entry["top1"] for entry in metrics["curve"] if entry["step"] > 0)


TOP1 = Measure("quantize", "top-1", "points", lambda metrics: metrics["top1"])
ERROR = Measure("quantize", "logit error", "%", lambda metrics: 100 * metrics["logit_error"], sign=-1)
SECONDS = Measure("images", "seconds of an inversion", "s", lambda metrics: metrics["seconds"], sign=-1)
LAST = Measure("transfer", "student's top-1 at the end", "points", lambda metrics: metrics["top1"])
FIRST = Measure("transfer", "student's top-1 when first scored", "points", at_first_score)

DENSE, SPARSE = "deepinversion_dense", "deepinversion_sparse"
CLAIMS = (
    Claim("Noise calibrates worse than inverted images", "table3", DENSE, "gaussian_noise", (TOP1, ERROR)),
    Claim("Sparse inversion calibrates as well as dense", "table3", SPARSE, DENSE, (TOP1,), MARGIN),
    Claim("The same of PSAQ-ViT", "table3", "psaq_sparse", "psaq_dense", (TOP1,), MARGIN),
    Claim("Sparse inversion is faster than dense", "table3", SPARSE, DENSE, (SECONDS,)),
    Claim(
        "Attention chooses better patches than chance", "table3", SPARSE, "random_selection", (TOP1, ERROR)
    ),
    Claim(
        "Inversion, not few patches, is what helps: sparse beats noise through as many random patches",
        "table3",
        SPARSE,
        "noise_random_patches",
        (TOP1, ERROR),
    ),
    Claim("Sparse images teach faster than dense ones", "kd", SPARSE, DENSE, (FIRST, LAST)),
    Claim(
        "They teach better than dense images through random patches",
        "kd",
        SPARSE,
        "dense_random_patches",
        (LAST,),
    ),
    Claim(
        "They teach better than noise through random patches", "kd", SPARSE, "noise_random_patches", (LAST,)
    ),
    Claim(
        "Attention chooses better patches to teach with than chance",
        "kd",
        SPARSE,
        "random_selection",
        (LAST,),
    ),
)

RULE = f"""\
Every line compares two rows pair by pair: same model, same seed of the images, and the same bit-width or student. The
difference is the mean over n pairs with its 95% confidence interval (Student's t). Pairs of one model share that
model, so the interval speaks of these models and not of all. **{HOLDS}**: the whole interval is on the claim's side.
**{FAILS}**: the whole interval is on the other side. **{OPEN}**: neither. A claim that two rows are as good as each
other holds where the whole interval lies above -{MARGIN:g} points, and does not where all of it lies below."""


def write(results: Path) -> list[Path]:
    """Write the page of every scale that can tell and has a table; returns their paths."""
    found = published.sheets(results)
    paths = []
    for scale in SCALES:
        sheets = {sheet.grid: sheet for sheet in found if sheet.scale == scale}
        if any(claim.grid in sheets for claim in CLAIMS):
            paths.append(results / scale / "README.md")
            atomic.write_text(paths[-1], text(scale, sheets))
    return paths


def text(scale: str, sheets: Mapping[str, Sheet]) -> str:
    """The whole page, markdown. sheets: by grid."""
    records = [record for sheet in sheets.values() for record in sheet.records.values()]
    parts = [
        f"# The paper's claims, {scale} scale",
        f"**{scale_notes.line(scale, records)}**. Tables: {', '.join(_links(sheets))}; figures: "
        "[figures](figures/README.md); settings and how they were chosen: [docs/cifar.md](../../docs/cifar.md).",
        markdown([row for claim in CLAIMS for row in _rows(claim, sheets)]),
        RULE,
    ]
    parts += [f"## How {grid} was made\n\n{footer(sheet)}" for grid, sheet in sheets.items()]
    return "\n\n".join(parts) + "\n"


def _links(sheets: Mapping[str, Sheet]) -> Iterator[str]:
    for sheet in sheets.values():
        name = published.file_name(sheet)
        yield f"[{Path(name).stem}]({name})"


def _rows(claim: Claim, sheets: Mapping[str, Sheet]) -> Iterator[dict[str, str]]:
    """A line for each measure and each bit-width or kind of student."""
    sheet = sheets.get(claim.grid)
    titles = (
        {} if sheet is None else {name: method.get("title", name) for name, method in sheet.methods.items()}
    )
    first, other = (titles.get(method, method) for method in (claim.first, claim.other))
    row = {"claim": claim.statement, "compared": f"{first} less {other}"}
    empty = {"where": "-", "measure": "-", "difference": "-", "n": "0", "verdict": NOT_RUN}
    found = False
    for measure in claim.measures if sheet is not None else ():
        for where, differences in pairs(sheet, claim, measure).items():
            found = True
            yield row | {"where": where, "measure": measure.name} | judged(claim, measure, differences)
    if not found:
        yield row | empty


def pairs(sheet: Sheet, claim: Claim, measure: Measure) -> dict[str, list[float]]:
    """Differences, first less other, of every pair whose two tasks are done: by bit-width or kind of student."""
    figures: dict[tuple[str, str], dict[tuple, float]] = {}
    for entry in sheet.cells:
        cell, record = entry["cell"], sheet.records.get(entry["tasks"].get(measure.column, ""))
        if cell["method"] in (claim.first, claim.other) and record is not None and record["status"] == "done":
            where = "-" if measure.column == "images" else str(cell.get("bits", cell.get("student", "-")))
            pair = (cell["model"], cell["dataset"], cell["seed"])
            figures.setdefault((where, cell["method"]), {})[pair] = measure.figure(record["metrics"])
    differences = {}
    for where in dict.fromkeys(where for where, _ in figures):
        first, other = (figures.get((where, method), {}) for method in (claim.first, claim.other))
        both = [first[pair] - other[pair] for pair in first if pair in other]
        if both:
            differences[where] = both
    return differences


def judged(claim: Claim, measure: Measure, differences: Sequence[float]) -> dict[str, str]:
    """The mean difference with its interval, and what the rule makes of it."""
    mean, half = interval(differences)
    shown = (
        f"{mean:+.2f} ± {half:.2f} {measure.unit}" if math.isfinite(half) else f"{mean:+.2f} {measure.unit}"
    )
    low, high = sorted((measure.sign * (mean - half), measure.sign * (mean + half)))
    bound = 0.0 if claim.margin is None else -claim.margin
    verdict = HOLDS if low > bound else FAILS if high < bound else OPEN
    return {"difference": shown, "n": str(len(differences)), "verdict": verdict}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of its 95% confidence interval; a single value leaves it infinite."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.inf
    return mean, float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(
        len(values)
    )

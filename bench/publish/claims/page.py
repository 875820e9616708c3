"""results/<scale>/README.md: claim by claim, which of the paper's statements hold at a scale whose figures can tell."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.engine import atomic
from bench.publish import manifest, scale_notes
from bench.publish.claims import MARGIN, Claim, forest
from bench.publish.claims.inference import LEVEL, MANY, POWER
from bench.publish.claims.lines import FAILS, HOLDS, OPEN, SAME, Judged, all_claims, judge, lines
from bench.publish.manifest import Sheet
from bench.publish.parts import NOT_RUN, NOTHING, footer, markdown, method_title
from bench.publish.words import plain
from bench.text import plural

FEW = f"""\
What is found holds of these teachers (the models that are inverted), on average, and not of the method in general, for
which {MANY} teachers or more are needed: the error is that of a seed within teachers, pooled, with T(S - 1) degrees of
freedom for T teachers of S seeds. Each teacher's own mean stands beside it."""
MANY_TEACHERS = """\
What is found holds of the method in general, for models like these: the error is that of a teacher, with T - 1 degrees
of freedom for T teachers, each of which counts with the mean of its seeds."""

RULE = f"""\
Every line compares two rows pair by pair: same model, data, seed of the images, and whatever else there is but the
method. {{unit}}

Differences are given with their 95% confidence intervals (Student's t). A line's p is the smaller of two: against no
difference at all (two-sided), and against a difference of the margin or more (two one-sided tests); at most one of the
two nulls is true. For a claim that two rows are as good as each other it is that against a difference of
-{MARGIN:g} points (two-sided, so one-sided at half the level). All distinct lines of this page together are held to
{LEVEL:.0%} by Holm's procedure.

- **{HOLDS}**, **{FAILS}**: told apart, on the claim's side or on the other.
- **{SAME}**: the difference lies within the margin ({{margins}}).
- **{OPEN}**: neither. The number says how many more {{units}} would tell no difference from one of the margin, and
  one of the margin from none, with {POWER:.0%} power at this page's level, if the spread is as found. That spread has
  few degrees of freedom itself, so the number is rough.
- *no assay sensitivity*: all that quantization loses here, in any row, is less than the margin. Noise would pass as
  well, so that being as good says nothing for a method."""


def write(results: Path, found: Sequence[Sheet]) -> list[Path]:
    """Write the page of every scale that can tell (`about: judged`) and has a table among those found; their paths."""
    paths = []
    for scale in dict.fromkeys(sheet.scale for sheet in found if sheet.about.get("judged")):
        sheets = {sheet.grid: sheet for sheet in found if sheet.scale == scale}
        if any(claim.grid in sheets for claim in all_claims()):
            paths.append(results / scale / "README.md")
            judged = judge(lines(sheets))
            forest.write(judged, sheets, scale, paths[-1].parent)
            atomic.write_text(paths[-1], text(scale, sheets, judged))
    return paths


def text(scale: str, sheets: Mapping[str, Sheet], judged: Sequence[Judged] | None = None) -> str:
    """The whole page, markdown. sheets: by grid; judged: its lines, if they are known already."""
    judged = judge(lines(sheets)) if judged is None else judged
    guide = next((sheet.about["guide"] for sheet in sheets.values() if sheet.about.get("guide")), None)
    settings = f"; settings and how they were chosen: [{guide}](../../{guide})" if guide else ""
    parts = [
        f"# The paper's claims, {scale} scale",
        f"**{plain(scale_notes.line(scale, *sheets.values()))}**. Tables: {', '.join(_links(sheets))}; figures: "
        f"[figures](figures/README.md){settings}.",
        *_summary(judged),
        *_tables(sheets, judged),
        "## The rule",
        _rule(judged),
    ]
    parts += [f"## How {grid} was made\n\n{footer(sheet)}" for grid, sheet in sheets.items()]
    return "\n\n".join(parts) + "\n"


def _links(sheets: Mapping[str, Sheet]) -> Iterator[str]:
    for sheet in sheets.values():
        name = manifest.file_name(sheet)
        yield f"[{Path(name).stem}]({name})"


def _summary(judged: Sequence[Judged]) -> Iterator[str]:
    """How many lines are decided, and the plot."""
    if not judged:
        return
    count = Counter(one.verdict for one in judged)
    verdicts = ", ".join(f"{count[verdict]} {verdict}" for verdict in (HOLDS, FAILS, SAME) if count[verdict])
    blind = sum(one.line.insensitive for one in judged if one.verdict != OPEN)
    said = f"**{len(judged) - count[OPEN]} of {plural(len(judged), 'line')} are decided**"
    said += f": {verdicts}" if verdicts else ""
    said += f" ({blind} of them without assay sensitivity)" if blind else ""
    yield f"{said}; {count[OPEN]} cannot be told."
    yield f"![Every line: the difference with its interval, and each teacher's own]({forest.NAME}.svg)"
    yield f"The same as [PNG]({forest.NAME}.png), its data as [CSV]({forest.NAME}.csv)."


def _tables(sheets: Mapping[str, Sheet], judged: Sequence[Judged]) -> Iterator[str]:
    """For each grid its claims, each with a table of its lines."""
    known = all_claims()
    for grid in dict.fromkeys(claim.grid for claim in known):
        yield f"## From {grid}"
        if grid not in sheets:
            yield NOT_RUN
            continue
        for claim in (claim for claim in known if claim.grid == grid):
            own = [one for one in judged if one.line.claim == claim]
            yield f"### {claim.statement}\n\n{_compared(sheets[grid], claim)}"
            yield markdown([_row(one) for one in own]) if own else NOT_RUN


def _compared(sheet: Sheet, claim: Claim) -> str:
    names = " less ".join(plain(method_title(sheet, method)) for method in (claim.first, claim.other))
    return f"{names}; as good as: worse by no more than {claim.margin:g}." if claim.margin else f"{names}."


def _row(one: Judged) -> dict[str, str]:
    line, effect = one.line, one.line.found
    spread = f" ± {effect.half:.2f}" if math.isfinite(effect.half) else ""
    pairs = sum(map(len, line.differences.values()))
    return {
        "of": f"{line.measure.name} ({line.measure.unit})",
        "where": line.where,
        "verdict": verdict(one),
        "difference": f"{effect.mean:+.2f}{spread} ({pairs})",
        "each teacher's own": ", ".join(f"{value:+.2f}" for value in effect.own.values()),
        "p": f"{line.p:.2g}" if line.p >= 1e-4 else "< 0.0001",
        "held to": f"{one.allowed:.2g}" if one.allowed else NOTHING,
    }


def verdict(one: Judged) -> str:
    """The verdict with what a reader must know of it."""
    said = one.verdict
    if one.more is not None:
        unit = "teacher" if one.line.found.over_teachers else "seed"
        said += f": {plural(one.more, f'more {unit}')}"
    told = one.verdict in (HOLDS, FAILS) and one.line.claim.margin is None  # a difference that was seen
    return f"{said}, no assay sensitivity" if one.line.insensitive and not told else said


def _rule(judged: Sequence[Judged]) -> str:
    general = bool(judged) and all(one.line.found.over_teachers for one in judged)
    margins = {
        f"{one.line.margin:g} {'points' if one.line.measure.unit == 'points' else one.line.measure.name}"
        for one in judged
        if one.line.margin is not None
    }
    return RULE.format(
        unit=MANY_TEACHERS if general else FEW,
        margins=", ".join(sorted(margins)) or f"{MARGIN:g} points",
        units="teachers" if general else "seeds of each teacher",
    )

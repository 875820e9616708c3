"""Two results folders side by side as one page: `python -m bench compare A B --page FILE.html`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.publish.comparing import LEVEL, OUTSIDE, SEED, UNTOLD, WITHIN, Comparison, Line
from bench.publish.manifest import Sheet
from bench.publish.parts import NOTHING, mean_std, method_title, model_title, origin, provenance
from bench.publish.report import templates
from bench.publish.summary import Column, Summary, Value
from bench.text import plural

TITLE = "Sparse Model Inversion: two results side by side"
SECTIONS = {
    "verdict": "Do they agree?",
    "tables": "Every figure",
    "origins": "Where both were made",
    "missing": "On one side alone",
}
STYLES = {
    OUTSIDE: ("fails", "✗"),
    UNTOLD: ("open", "?"),
    WITHIN: ("holds", "✓"),
}  # in the order to read them in
RULE = (
    "Cells that differ by the seed alone are one line for each figure. Seeds that both have are paired, otherwise "
    "Welch's t test compares the means; p is adjusted by Holm's rule over all lines, and a line lies outside where it "
    f"is below {LEVEL:g}. With one seed on a side another figure may be chance, so nothing is told."
)
NOTE = (
    "A and B are mean ± sample standard deviation over seeds (n). Models told apart: seeds whose two models differ on "
    "the test pictures by more than chance, of those where that is known. Made with: whether device, versions and "
    "commit are the same."
)
# The first stays in view; method, bits, model and dataset are the axes that most grids have, "more" holds the others.
COLUMNS = (
    "method",
    "verdict",
    "figure",
    "bits",
    "A",
    "B",
    "B - A",
    "p (Holm)",
    "models told apart",
    "made with",
)
PLACE = ("model", "dataset", "more", "grid")
SHOWN = ("hardware", "versions", "commit", "date", "seeds", "command")  # of each side


def build(found: Comparison, first: Path, other: Path) -> str:
    """The page of a comparison of two folders, of which only the names are said."""
    lines = sorted(found.lines, key=lambda line: list(STYLES).index(line.verdict))
    verdicts = [line.verdict for line in lines]
    return templates.whole(
        "compared.html.j2",
        title=TITLE,
        first=first.resolve().name,
        other=other.resolve().name,
        sections=SECTIONS,
        said=_said(verdicts),
        counts=[(*STYLES[name], verdicts.count(name), name) for name in STYLES],
        rule=RULE,
        lines=_summary(lines, {(one.scale, one.grid): one for one, _ in found.pairs}),
        origins=sorted((_origin(*pair) for pair in found.pairs), key=lambda one: not one["differing"]),
        alone=_alone(found),
    )


def _said(verdicts: Sequence[str]) -> str:
    outside, untold, every = verdicts.count(OUTSIDE), verdicts.count(UNTOLD), plural(len(verdicts), "figure")
    if outside:
        return f"They do not agree: {outside} of {every} lie outside the spread of the seeds."
    if not verdicts or untold == len(verdicts):
        return f"Nothing can be told of {every}."
    return f"They agree: none of {every} lies outside the spread of the seeds."


def _summary(lines: Sequence[Line], sheets: dict[tuple[str, str], Sheet]) -> Summary:
    rows = [_row(line, sheets[line.scale, line.grid]) for line in lines]
    columns = [Column(name) for name in (*COLUMNS, *PLACE)]
    axes = ("verdict", "grid", "model", "method", "bits", "figure")
    return Summary("compared", "A beside B, cell by cell", NOTE, columns, rows, axes)


def _row(line: Line, sheet: Sheet) -> dict[str, Value]:
    cell = dict(line.cell)
    named = ("model", "dataset", "method", "bits")
    more = [f"{axis} {value}" for axis, value in cell.items() if axis not in (*named, SEED)]
    apart, known = line.told_apart
    values = [list(side.values()) for side in (line.first, line.other)]
    a, b = (Value(mean_std(side, 3), sum(side) / len(side)) for side in values)
    return {
        "method": Value(method_title(sheet, str(cell["method"])) if "method" in cell else NOTHING),
        "bits": Value(str(cell.get("bits", NOTHING))),
        "figure": Value(line.figure.replace("_", " ")),
        "A": a,
        "B": b,
        "B - A": Value(f"{line.difference:+.3f}", line.difference),
        "verdict": Value(line.verdict, style=STYLES[line.verdict][0]),
        "p (Holm)": Value(NOTHING if line.adjusted is None else f"{line.adjusted:.3f}", line.adjusted),
        "models told apart": Value(f"{apart} of {known}" if known else NOTHING, apart if known else None),
        "made with": Value(_differing(*(origin(side) for side in line.records)) or "all the same"),
        "model": Value(model_title(str(cell.get("model", NOTHING)))),
        "dataset": Value(str(cell.get("dataset", NOTHING))),
        "more": Value(", ".join(more) or NOTHING),
        "grid": Value(f"{line.scale}/{line.grid}"),
    }


def _differing(ours: dict[str, str], theirs: dict[str, str]) -> str:
    """`other hardware, commit`, or nothing."""
    names = [name for name in ours if ours[name] != theirs[name]]
    return f"other {', '.join(names)}" if names else ""


def _origin(one: Sheet, two: Sheet) -> dict[str, Any]:
    ours, theirs = provenance(one), provenance(two)
    return {
        "name": f"{one.scale}/{one.grid}",
        "differing": _differing(
            *({name: side[name] for name in ("hardware", "versions", "commit")} for side in (ours, theirs))
        ),
        "rows": [{"name": name, "first": ours[name], "other": theirs[name]} for name in SHOWN],
    }


def _alone(found: Comparison) -> list[str]:
    said = [
        f"only in {side}: {', '.join(names)}"
        for side, names in (("A", found.only_first), ("B", found.only_other))
        if names
    ]
    return said + ([f"finished on one side alone: {plural(found.missing, 'cell')}"] if found.missing else [])

"""The claims' forest plot: a point and an interval a line, each teacher's own effect beside, coloured by verdict."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.engine import atomic
from bench.publish import scale_notes
from bench.publish.claims.lines import FAILS, HOLDS, OPEN, SAME, Judged
from bench.publish.manifest import Sheet

NAME = "claims"  # stem of the files
LOOKS = {  # colour, marker: told apart without colours too
    HOLDS: ("#0072B2", "o"),
    FAILS: ("#D55E00", "X"),
    SAME: ("#009E73", "D"),
    OPEN: ("#7F7F7F", "o"),
}
LINE, EDGE = 0.17, 1.35  # inches of a line; of title, axis and legend
COLUMNS = (
    *(
        "claim",
        "grid",
        "first",
        "other",
        "measure",
        "unit",
        "better",
        "where",
        "mean",
        "low",
        "high",
        "freedom",
    ),
    *("p", "held_to", "verdict", "assay_sensitivity", "more_needed", "each_teacher"),
)
LINEAR = 1.0  # up to here the axis is even, beyond it logarithmic


def write(judged: Sequence[Judged], sheets: Mapping[str, Sheet], scale: str, folder: Path) -> None:
    """Write claims.csv, claims.svg and claims.png into a folder; none where there is no line."""
    if not judged:
        return
    atomic.write_text(folder / f"{NAME}.csv", table(judged))
    import matplotlib

    from bench.publish.figures.files import save
    from bench.publish.figures.kinds import Still
    from bench.publish.figures.style import SETTINGS

    with matplotlib.rc_context(SETTINGS):
        save(Still(_draw(judged, scale_notes.line(scale, *sheets.values())), "", vector=True), folder, NAME)


def table(judged: Sequence[Judged]) -> str:
    """What is drawn, as CSV: a row a line; differences as they are, first less other."""
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(COLUMNS)
    for one in judged:
        line, effect = one.line, one.line.found
        known = math.isfinite(effect.half)
        ends = [f"{effect.mean + sign * effect.half:.6g}" if known else "" for sign in (-1, 1)]
        claim, measure = line.claim, line.measure
        row = [claim.statement, claim.grid, claim.first, claim.other, measure.name, measure.unit]
        row += ["more" if measure.sign == 1 else "less", line.where, f"{effect.mean:.6g}", *ends]
        row += [effect.freedom, f"{line.p:.4g}", f"{one.allowed:.4g}", one.verdict]
        row += ["no" if line.insensitive else "yes", "" if one.more is None else one.more]
        rows.writerow([*row, "; ".join(f"{teacher} {value:.6g}" for teacher, value in effect.own.items())])
    return buffer.getvalue()


def _draw(judged: Sequence[Judged], scale_line: str) -> Any:
    from bench.publish.figures.style import canvas, drawn

    heads = list(dict.fromkeys((one.line.claim, one.line.measure) for one in judged))
    slots = len(judged) + 1.15 * len(heads)
    figure = canvas(LINE * slots + EDGE, "The paper's claims: differences with 95% intervals", scale_line)
    axes = figure.subplots()
    axes.set_xscale("symlog", linthresh=LINEAR, linscale=1.4)
    ticks, names, y = [], [], 0.0
    for claim, measure in heads:
        own = [one for one in judged if (one.line.claim, one.line.measure) == (claim, measure)]
        y += 1.15
        place = axes.get_yaxis_transform()  # x in shares of the width, y in data
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        head = {"fontsize": 7.5, "fontweight": "bold", "va": "center", "bbox": box, "zorder": 4}
        axes.text(
            0.0, y, drawn(f"{claim.statement}: {measure.name} ({measure.unit})"), transform=place, **head
        )
        for one in own:
            y += 1
            _line(axes, one, y)
            ticks.append(y)
            names.append(drawn(one.line.where))
    axes.axvline(0, color="#000000", linewidth=0.8, zorder=1)
    axes.set_ylim(y + 0.8, 0.3)
    axes.set_yticks(ticks, names, fontsize=7.5)
    axes.set_xlim(-_widest(judged), _widest(judged))
    axes.set_xticks(*_ticks(_widest(judged)))
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("against the claim  ◀  difference, first row less the other (even up to ±1, then logarithmic)"
                    "  ▶  on the claim's side", fontsize=8)  # fmt: skip
    _legend(figure, judged)
    return figure


def _line(axes: Any, one: Judged, y: float) -> None:
    """Interval, point and teachers; right is the claim's side."""
    line, effect = one.line, one.line.found
    colour, marker = LOOKS[one.verdict]
    sign = line.measure.sign
    if line.margin is not None:
        axes.fill_betweenx(
            [y - 0.5, y + 0.5], -line.margin, line.margin, color="#EEEEEE", linewidth=0, zorder=0
        )
    if math.isfinite(effect.half):
        ends = [sign * (effect.mean - effect.half), sign * (effect.mean + effect.half)]
        axes.plot(ends, [y, y], color=colour, linewidth=1.8, solid_capstyle="butt", zorder=2)
    face = "white" if one.verdict == OPEN else colour
    axes.plot(
        [sign * effect.mean], [y], marker=marker, color=colour, markerfacecolor=face, markersize=5.5, zorder=3
    )
    own = [sign * value for value in effect.own.values()]
    axes.plot(
        own, [y - 0.28] * len(own), linestyle="none", marker="|", color="#222222", markersize=4, zorder=3
    )


def _widest(judged: Sequence[Judged]) -> float:
    reach = [abs(one.line.found.mean) + min(one.line.found.half, 1e3) for one in judged]
    reach += [abs(value) for one in judged for value in one.line.found.own.values()]
    return 1.15 * max(LINEAR, *reach)


def _ticks(widest: float) -> tuple[list[float], list[str]]:
    positive = [0.5, 1, *(base * 10**power for power in range(4) for base in (2, 5, 10))]
    positive = [value for value in positive if value <= widest]
    places = [*(-value for value in reversed(positive)), 0, *positive]
    return places, [f"{place:+g}" if place else "0" for place in places]


def _legend(figure: Any, judged: Sequence[Judged]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for verdict, (colour, marker) in LOOKS.items():
        count = sum(one.verdict == verdict for one in judged)
        face = "white" if verdict == OPEN else colour
        handles.append(
            Line2D([], [], color=colour, marker=marker, markerfacecolor=face, label=f"{verdict} ({count})")
        )
    handles.append(Line2D([], [], color="#222222", marker="|", linestyle="none", label="each teacher's own"))
    handles.append(Patch(color="#EEEEEE", label="the margin"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)

"""What stands at the top of a report: claim by claim what holds, and the forest plot as numbers for the template.

The plot's axis is even up to a difference of 1 and logarithmic beyond it, and right is the claim's side, as in
bench/publish/claims/forest.py. Places along it are percentages of its width.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.publish.claims.lines import ALL, FAILS, HOLDS, OPEN, SAME, Judged, all_claims, judge, lines
from bench.publish.claims.page import verdict
from bench.publish.manifest import Sheet
from bench.publish.parts import method_title
from bench.text import plural

EVEN = 0.7  # decades that a difference of 1 takes: the even part of the axis
TICKS = (0.1, 0.5, 1, 10, 100, 1000)
OF_THESE = (
    "What is found holds of the models that were inverted here, on average, not of the method in general."
)
OF_ALL = "What is found holds of the method in general, for models like these."
SEEN = "seen, not judged"  # at a scale that cannot tell
STYLES = {  # class, and a sign that tells verdicts apart without colours
    HOLDS: ("holds", "✓"),
    FAILS: ("fails", "✗"),
    SAME: ("same", "="),
    OPEN: ("open", "?"),
    SEEN: ("open", "·"),
}


@dataclass(frozen=True)
class Axis:
    """The differences from -widest to widest."""

    widest: float

    def place(self, value: float) -> float:
        """Per cent of the width, 0 to 100; what lies outside stands at the edge."""
        share = self._stretched(value) / self._stretched(self.widest)
        return round(50 + 50 * max(-1.0, min(1.0, share)), 2)

    def ticks(self) -> list[tuple[float, str]]:
        """(place, label), signs included."""
        positive = [tick for tick in TICKS if 1 <= tick <= self.widest]
        values = [*(-tick for tick in reversed(positive)), 0.0, *positive]
        return [(self.place(value), f"{value:+g}" if value else "0") for value in values]

    @staticmethod
    def _stretched(value: float) -> float:
        size = abs(value)
        return math.copysign(EVEN * size if size <= 1 else EVEN + math.log10(size), value)


def verdicts(sheets: Mapping[str, Sheet]) -> dict[str, Any]:
    """For the template: the count of verdicts in words, each claim with its verdicts and the plot's lines, the axis.

    At a scale that is not judged (bench.grid.About) the differences are shown and nothing is said of them.
    """
    judged = judge(lines(sheets))
    told = any(sheet.about.get("judged") for sheet in sheets.values())
    count = Counter(one.verdict for one in judged)
    axis = Axis(_widest(judged))
    claims = [
        _claim(sheets[claim.grid], claim, [one for one in judged if one.line.claim == claim], axis, told)
        for claim in all_claims()
        if any(one.line.claim == claim for one in judged)
    ]
    decided = len(judged) - count[OPEN]
    return {
        "told": told,
        "claims": claims,
        "ticks": axis.ticks(),
        "said": f"{decided} of {plural(len(judged), 'comparison')} are decided." if told else "",
        "reach": OF_ALL if judged and all(one.line.found.over_teachers for one in judged) else OF_THESE,
        "counts": [(*STYLES[name], count[name], name) for name in (HOLDS, FAILS, SAME, OPEN)] if told else [],
    }


def _widest(judged: Sequence[Judged]) -> float:
    reach = [abs(one.line.found.mean) + min(one.line.found.half, 1e3) for one in judged]
    reach += [abs(value) for one in judged for value in one.line.found.own.values()]
    return 1.1 * max(1.0, *reach) if reach else 1.0


def _claim(sheet: Sheet, claim: Any, judged: Sequence[Judged], axis: Axis, told: bool) -> dict[str, Any]:
    names = [method_title(sheet, method) for method in (claim.first, claim.other)]
    bound = f"; as good as means worse by no more than {claim.margin:g}" if claim.margin else ""
    return {
        "statement": claim.statement,
        "compared": f"{names[0]} less {names[1]}{bound}",
        "grid": sheet.grid,
        "verdicts": _by_verdict(judged) if told else [],
        "lines": [_line(one, axis, told) for one in judged],
    }


def _by_verdict(judged: Sequence[Judged]) -> list[tuple[str, str, str, str]]:
    """(class, sign, verdict, where it was found), a verdict once."""
    found: dict[str, dict[str, list[str]]] = {}
    for one in judged:
        places = found.setdefault(one.verdict, {}).setdefault(one.line.measure.name, [])
        if one.line.where != ALL:
            places.append(one.line.where)
    return [
        (*STYLES[name], name, _where(found[name])) for name in (HOLDS, FAILS, SAME, OPEN) if name in found
    ]


def _where(by_measure: Mapping[str, Sequence[str]]) -> str:
    parts = (
        f"{measure} ({', '.join(places)})" if places else measure for measure, places in by_measure.items()
    )
    return "; ".join(parts)


def _line(one: Judged, axis: Axis, told: bool) -> dict[str, Any]:
    """One line of the plot. Its numbers are as measured; along the axis right is the claim's side."""
    line, effect = one.line, one.line.found
    sign = line.measure.sign
    ends = [axis.place(sign * (effect.mean + side * effect.half)) for side in (-sign, sign)]
    known = math.isfinite(effect.half)
    style, mark = STYLES[one.verdict if told else SEEN]
    spread = f" ± {effect.half:.2f}" if known else ""
    return {
        "measure": f"{line.measure.name}",
        "unit": line.measure.unit,
        "where": "" if line.where == ALL else line.where,
        "style": style,
        "mark": mark,
        "verdict": verdict(one) if told else "",
        "shown": f"{effect.mean:+.2f}{spread}",
        "point": axis.place(sign * effect.mean),
        "interval": ends if known else [],
        "own": [axis.place(sign * value) for value in effect.own.values()],
        "margin": [] if line.margin is None else [axis.place(-line.margin), axis.place(line.margin)],
    }

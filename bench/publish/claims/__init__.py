"""What the paper claims, as experiments state it (bench/experiments/*/claims.py), held against published records.

inference.py: effects, p-values, Holm, seeds needed. lines.py: the lines of a scale and their verdicts.
page.py: results/<scale>/README.md. forest.py: the plot and its data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MARGIN = 0.5  # points of top-1 within which two rows count as equally good


@dataclass(frozen=True)
class Measure:
    """What is compared: figure(metrics of the task in `column`), in `unit`; more is better where `sign` is 1.

    margin: a difference that matters to nobody, in `unit`; None where every difference does.
    damage: (metrics) -> what was lost at all, in `unit`, where a measure knows it. Where nothing compared has lost as
    much as the margin, no row can be found to be worse by it, and "as good as" says little.
    """

    column: str
    name: str
    unit: str
    figure: Callable[[Mapping[str, Any]], float]
    sign: int = 1
    margin: float | None = None
    damage: Callable[[Mapping[str, Any]], float] | None = None


@dataclass(frozen=True)
class Claim:
    """`first` is better than `other`, or no worse by more than `margin` where there is one."""

    statement: str
    grid: str
    first: str
    other: str
    measures: tuple[Measure, ...]
    margin: float | None = None

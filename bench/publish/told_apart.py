"""Whether two models are told apart on pictures like these: McNemar's test on the pictures that both were shown.

That is a statement on these two models, never on the methods that they were calibrated with: seeds are for that
(bench/publish/claims).
"""

from __future__ import annotations

from collections.abc import Iterable

from bench.engine.store import Record
from bench.tasks import answers

LEVEL = 0.05
NOTE = f"""\
"Told apart" is of two models on pictures like these, seed by seed: McNemar's test (mid-p, {LEVEL:.0%}) on the pictures
that only one of the two answers right. It says nothing of the methods behind them, which differ by seed, too."""


def mid_p(only_first: int, only_other: int) -> float:
    """McNemar's mid-p, two-sided, from the pictures that only one of two models answers right.

    The exact binomial p less the probability of what was found; 1 where both numbers are the same. Fagerland et al.,
    BMC Medical Research Methodology 13:91 (2013).
    """
    from scipy.stats import binom  # takes a second, and most records have no such bits

    if only_first == only_other:
        return 1.0
    few, count = min(only_first, only_other), only_first + only_other
    return float(2 * binom.cdf(few, count, 0.5) - binom.pmf(few, count, 0.5))


def p_value(first: Record, other: Record) -> float | None:
    """mid_p of two finished records; None unless both say which of the same pictures they answered right."""
    right = [answers.unpack(record["metrics"]) for record in (first, other)]
    if right[0] is None or right[1] is None or len(right[0]) != len(right[1]):
        return None
    if first["settings"].get("test") != other["settings"].get("test"):
        return None
    return mid_p(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))


def said(pairs: Iterable[tuple[Record | None, Record | None]]) -> str:
    """`told apart: 2 of 3`, of pairs of one model and seed; nothing where no pair's answers are known."""
    values = [
        p
        for first, other in pairs
        if first is not None and other is not None and first["status"] == other["status"] == "done"
        if (p := p_value(first, other)) is not None
    ]
    return f"told apart: {sum(p <= LEVEL for p in values)} of {len(values)}" if values else ""

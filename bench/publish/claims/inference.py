"""What paired differences say: an effect with its interval, p-values, Holm's levels, and how many seeds would decide.

Pairs share a teacher (the model that is inverted) and a seed. With few teachers what is found is of these teachers: the
error is a seed's, within teachers. From MANY on it is of the method in general: the error is a teacher's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

MANY = 8  # teachers from which on a statement is one on the method
LEVEL = 0.05  # of a page: the chance that any of its verdicts is wrong
POWER = 0.8  # with which the seeds that are asked for decide
STEPS = 500  # of an integral over the errors that may be found
MOST = 10_000  # seeds beyond which nobody is told to go


@dataclass(frozen=True)
class Effect:
    """A mean difference, its standard error and their degrees of freedom (0: nothing is known of the error).

    own: each teacher's mean. deviation: standard deviation of one unit (a seed of a teacher, or a teacher); units: how
    many there are for each teacher, or in all where teachers are the units.
    """

    mean: float
    error: float
    freedom: int
    deviation: float
    units: int
    own: Mapping[str, float]

    @property
    def over_teachers(self) -> bool:
        return len(self.own) >= MANY

    @cached_property
    def half(self) -> float:
        """Half of the 95% confidence interval."""
        return float(stats.t.ppf(0.975, self.freedom)) * self.error if self.freedom else math.inf

    def above(self, bound: float) -> float:
        """p of the null that the difference is `bound` or less."""
        if not self.freedom:
            return 1.0
        if self.error == 0:
            return float(self.mean <= bound)
        return float(stats.t.sf((self.mean - bound) / self.error, self.freedom))

    def below(self, bound: float) -> float:
        """p of the null that the difference is `bound` or more."""
        if not self.freedom:
            return 1.0
        if self.error == 0:
            return float(self.mean >= bound)
        return float(stats.t.cdf((self.mean - bound) / self.error, self.freedom))

    def apart(self, bound: float = 0.0) -> float:
        """Two-sided p of the null that the difference is `bound`."""
        return min(1.0, 2 * min(self.above(bound), self.below(bound)))

    def within(self, margin: float) -> float:
        """p of the null that the difference is no smaller than `margin` (two one-sided tests)."""
        return max(self.above(-margin), self.below(margin))


def effect(differences: Mapping[str, Sequence[float]]) -> Effect:
    """differences: teacher -> those of its pairs, at least one each."""
    own = {teacher: statistics.fmean(values) for teacher, values in differences.items()}
    mean, count = statistics.fmean(own.values()), len(own)
    if count >= MANY:
        deviation = statistics.stdev(own.values())
        return Effect(mean, deviation / math.sqrt(count), count - 1, deviation, count, own)
    freedom = sum(len(values) - 1 for values in differences.values())
    squares = math.fsum((v - own[teacher]) ** 2 for teacher, values in differences.items() for v in values)
    deviation = math.sqrt(squares / freedom) if freedom else math.inf
    shares = math.fsum(1 / len(values) for values in differences.values())
    error = deviation * math.sqrt(shares) / count
    return Effect(mean, error, freedom, deviation, min(map(len, differences.values())), own)


def holm(values: Sequence[float], level: float = LEVEL) -> list[float]:
    """For each p-value the level that Holm's step-down holds it to; 0 from the first on that fails its own."""
    levels = [0.0] * len(values)
    for place, tests in _step_down(values):
        allowed = level / tests
        if values[place] > allowed:
            break
        levels[place] = allowed
    return levels


def adjusted(values: Sequence[float]) -> list[float]:
    """Each p-value as Holm's step-down raises it: to be read against one level, whatever their number."""
    raised, largest = [0.0] * len(values), 0.0
    for place, tests in _step_down(values):
        largest = max(largest, min(1.0, values[place] * tests))
        raised[place] = largest
    return raised


def _step_down(values: Sequence[float]) -> Iterator[tuple[int, int]]:
    """(place, tests that are left) from the least p-value to the greatest."""
    order = sorted(range(len(values)), key=values.__getitem__)
    return zip(order, range(len(values), 0, -1), strict=True)


def needed(found: Effect, margin: float, level: float) -> int | None:
    """Units (seeds of each of these teachers, or teachers) with which a difference of the margin is told from none,
    and none from one of the margin, each with POWER at a two-sided `level`; None if more than MOST or unknown."""
    if not math.isfinite(found.deviation):
        return None
    teachers = 1 if found.over_teachers else len(found.own)

    def enough(units: int) -> bool:
        powers = (power_apart, power_within)
        return all(one(units, teachers, found.deviation, margin, level) >= POWER for one in powers)

    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
        if low > MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def power_apart(units: int, teachers: int, deviation: float, difference: float, level: float) -> float:
    """Chance that a true `difference` is told from 0 at a two-sided level (noncentral t)."""
    freedom = teachers * (units - 1)
    if deviation == 0:
        return 1.0
    shift = difference * math.sqrt(teachers * units) / deviation
    return float(stats.nct.sf(stats.t.ppf(1 - level / 2, freedom), freedom, shift))


def power_within(units: int, teachers: int, deviation: float, margin: float, level: float) -> float:
    """Chance that no difference at all is found to lie within the margin (two one-sided tests at `level`)."""
    freedom = teachers * (units - 1)
    if deviation == 0:
        return 1.0
    # Both tests share their error, so: what is left of the margin, averaged over the errors that may be found.
    found = np.sqrt(stats.chi2.ppf((np.arange(STEPS) + 0.5) / STEPS, freedom) / freedom)
    left = margin * math.sqrt(teachers * units) / deviation - stats.t.ppf(1 - level, freedom) * found
    return float(np.maximum(0.0, 2 * stats.norm.cdf(left) - 1).mean())

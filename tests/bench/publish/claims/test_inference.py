"""The rule's statistics: against scipy where scipy has them, and against simulated data whose truth is known."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.publish.claims import inference
from bench.publish.claims.inference import (
    LEVEL,
    MANY,
    effect,
    holm,
    needed,
    power_apart,
    power_within,
)

NUMBERS = st.integers(-100_000, 100_000).map(lambda thousandths: thousandths / 1000)
MARGIN = 0.5


@settings(deadline=None)
@given(st.lists(NUMBERS, min_size=3, max_size=12).filter(lambda v: statistics.stdev(v) > 1e-3))
def test_one_teacher_is_the_t_test_of_its_seeds(values):
    found, theirs = effect({"a": values}), stats.ttest_1samp(values, 0.0)
    low, high = theirs.confidence_interval(0.95)
    assert found.mean == statistics.fmean(values) and found.freedom == len(values) - 1
    assert found.apart() == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), rel=1e-6)
    above = stats.ttest_1samp(values, -MARGIN, alternative="greater").pvalue
    below = stats.ttest_1samp(values, MARGIN, alternative="less").pvalue
    assert found.within(MARGIN) == pytest.approx(max(above, below), rel=1e-6, abs=1e-12)
    assert found.apart(-MARGIN) == pytest.approx(
        stats.ttest_1samp(values, -MARGIN).pvalue, rel=1e-6, abs=1e-12
    )


@settings(deadline=None)
@given(st.lists(st.lists(NUMBERS, min_size=2, max_size=3), min_size=MANY, max_size=12))
def test_from_many_teachers_on_it_is_the_t_test_of_their_means(values):
    means = [statistics.fmean(of_one) for of_one in values]
    if statistics.stdev(means) < 1e-3:
        return
    found, theirs = (
        effect({str(place): of_one for place, of_one in enumerate(values)}),
        stats.ttest_1samp(means, 0),
    )
    assert found.over_teachers and found.freedom == len(values) - 1
    assert found.apart() == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)


def test_few_teachers_are_pooled_within_and_unequal_numbers_of_seeds_weigh_as_they_should():
    found = effect({"a": [1.0, 2.0, 3.0], "b": [11.0, 13.0, 15.0, 13.0]})
    squares = 2.0 + 8.0
    assert found.freedom == 5 and found.deviation == pytest.approx(math.sqrt(squares / 5))
    assert found.mean == 7.5 and found.own == {"a": 2.0, "b": 13.0}
    assert found.error == pytest.approx(found.deviation * math.sqrt(1 / 3 + 1 / 4) / 2)
    fitted = stats.ttest_ind([1.0, 2.0, 3.0], [-11.0, -13.0, -15.0, -13.0])  # sum of means against 0, pooled
    assert found.apart() == pytest.approx(fitted.pvalue)


def test_one_pair_tells_nothing_and_no_spread_tells_all():
    assert effect({"a": [3.0], "b": [4.0]}).half == math.inf
    assert effect({"a": [3.0]}).apart() == effect({"a": [0.1]}).within(MARGIN) == 1.0
    sure = effect({"a": [1.0, 1.0]})
    assert sure.half == 0 and sure.apart() == 0 and sure.within(MARGIN) == 1 and sure.within(2.0) == 0


def adjusted(values: list[float]) -> list[float]:
    """Holm's adjusted p-values, by their definition."""
    return [
        max(min(1.0, sum(other >= at for other in values) * at) for at in values if at <= value)
        for value in values
    ]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30, unique=True))
def test_holm_rejects_what_its_adjusted_values_reject(values):
    assert inference.adjusted(values) == pytest.approx(adjusted(values))
    for value, level, corrected in zip(values, holm(values), adjusted(values), strict=True):
        assert (level > 0) == (corrected <= LEVEL) or math.isclose(corrected, LEVEL)
        assert not level or value <= level <= LEVEL


def test_holm_stops_at_the_first_that_fails_whatever_comes_after():
    assert holm([0.03, 0.03]) == [0.0, 0.0]
    assert holm([0.02, 0.04]) == [0.025, 0.05]


def test_the_seeds_needed_are_those_of_the_design():
    """Two teachers, 43 lines; standard deviations of a seed as they were found (docs/cifar.md)."""
    for deviation, seeds in ((0.15, 4), (2.7, 276)):
        two = {"a": [deviation / math.sqrt(2), -deviation / math.sqrt(2)], "b": [0.0, 0.0]}
        found = effect({k: [math.sqrt(2) * v for v in values] for k, values in two.items()})
        assert found.deviation == pytest.approx(deviation)
        assert needed(found, MARGIN, LEVEL / 43) == seeds
    assert needed(effect({"a": [3.0]}), MARGIN, LEVEL) is None
    assert needed(effect({"a": [-1e9, 1e9]}), MARGIN, LEVEL) is None


@pytest.mark.parametrize("teachers", [1, 2, MANY])
def test_power_is_what_simulation_finds(teachers):
    draw, units, deviation, level, count = np.random.default_rng(teachers), 6, 0.6, 0.01, 4000
    spread = deviation * draw.standard_normal((count, teachers, units))
    freedom = teachers * (units - 1)
    for true, p_of, power in (
        (MARGIN, lambda t_, e: 2 * stats.t.sf(np.abs(t_ / e), freedom), power_apart),
        (
            0.0,
            lambda t_, e: np.maximum(
                stats.t.sf((t_ + MARGIN) / e, freedom), stats.t.sf((MARGIN - t_) / e, freedom)
            ),
            power_within,
        ),
    ):
        within = spread - spread.mean(2, keepdims=True)
        error = np.sqrt((within**2).sum((1, 2)) / freedom / (teachers * units))
        told = (p_of(true + spread.mean((1, 2)), error) <= level).mean()
        expected = power(units, teachers, deviation, MARGIN, level)
        assert told == pytest.approx(expected, abs=4 * math.sqrt(0.25 / count))


def test_a_page_is_wrong_at_most_in_one_of_twenty():
    """40 lines, two teachers of three seeds, some truly without a difference and some truly one margin apart."""
    draw, pages, lines = np.random.default_rng(0), 1000, 40
    truths = np.array([0.0, MARGIN] * (lines // 2))
    values = truths[:, None, None] + 0.2 * draw.standard_normal((pages, lines, 2, 3))
    mean = values.mean((2, 3))
    error = np.sqrt(((values - values.mean(3, keepdims=True)) ** 2).sum((2, 3)) / 4 / 6)
    apart = 2 * stats.t.sf(np.abs(mean) / error, 4)
    within = np.maximum(stats.t.sf((mean + MARGIN) / error, 4), stats.t.sf((MARGIN - mean) / error, 4))
    for line in range(lines):  # which is what the rule computes
        one = effect({"a": list(values[0, line, 0]), "b": list(values[0, line, 1])})
        assert (one.apart(), one.within(MARGIN)) == pytest.approx((apart[0, line], within[0, line]))
    wrong = 0
    for page in range(pages):
        levels = np.array(holm(list(np.minimum(apart[page], within[page]))))
        wrong += bool(np.any(np.where(truths == 0, apart[page], within[page]) <= levels))
    assert 0 < wrong / pages <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / pages)

"""McNemar's mid-p of two models on the same pictures, against scipy's exact test."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from bench.publish.told_apart import LEVEL, mid_p, p_value, said
from bench.tasks.answers import FIELD, pack


def record(right, test="cifar10", **changed):
    metrics = {"pictures": len(right), FIELD: pack(np.array(right, dtype=bool))}
    return {"status": "done", "metrics": metrics, "settings": {"test": test}, **changed}


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 200))
def test_mid_p_is_the_exact_p_less_the_chance_of_what_was_found(only_first, only_other):
    found, count = mid_p(only_first, only_other), only_first + only_other
    if only_first == only_other:
        assert found == 1
        return
    exact = binomtest(only_first, count, 0.5)
    chance = binomtest(only_first, count, 0.5, "less").pvalue - (
        binomtest(only_first - 1, count, 0.5, "less").pvalue if only_first else 0.0
    )
    assert found == pytest.approx(exact.pvalue - chance, abs=1e-12) and 0 <= found <= 1
    assert found == mid_p(only_other, only_first)


def test_only_pictures_that_one_of_both_gets_right_count():
    first, other = [1, 1, 1, 0, 0, 1, 1, 1], [1, 0, 0, 0, 1, 0, 0, 0]
    assert p_value(record(first), record(other)) == mid_p(6 - 1 + 0, 1) == mid_p(5, 1)


def test_models_that_differ_by_nothing_are_rarely_told_apart():
    draw = np.random.default_rng(0)
    told = sum(mid_p(int(few), 40 - int(few)) <= LEVEL for few in draw.binomial(40, 0.5, 2000))
    assert told / 2000 <= LEVEL + 0.015


def test_the_table_says_of_how_many_seeds_and_nothing_of_records_without_answers():
    sure, same = (record([1] * 30), record([0] * 30)), (record([1, 0]), record([1, 0]))
    old = record([1, 0])
    del old["metrics"][FIELD]
    assert said([sure, same, sure]) == "told apart: 2 of 3"
    assert said([sure, (old, record([1, 1])), (None, old)]) == "told apart: 1 of 1"
    assert said([(old, old), (None, None)]) == said([]) == ""
    assert said([(record([1] * 9, test="a"), record([0] * 9, test="b"))]) == "", "other pictures"
    assert said([(record([1] * 9), record([0] * 9, status="failed", metrics={}))]) == ""

"""Equal numbers give equal keys, however a grid spells them; keys of published grids stay as they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engine.task import canonical_json
from bench.grid.spelling import one_spelling
from bench.models import training

values = st.recursive(
    st.integers(-100, 100) | st.booleans() | st.text(max_size=3) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def as_floats(value):
    if isinstance(value, dict):
        return {key: as_floats(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [as_floats(inner) for inner in value]
    return float(value) if type(value) is int else value


@given(values, values)
def test_equal_values_are_spelt_alike_whatever_the_default(value, default):
    for like in (None, default, value, as_floats(value)):
        one, other = one_spelling(value, like), one_spelling(as_floats(value), like)
        assert canonical_json(one) == canonical_json(other)
        assert one == value


def test_fractions_and_booleans_stay_what_they_are():
    assert one_spelling([0.5, True, 1.0, "1.0"]) == [0.5, True, 1, "1.0"]
    assert type(one_spelling(1.0)) is int and one_spelling(True) is True and one_spelling(1.0, True) == 1.0


@pytest.mark.parametrize(
    "setting", ["lr", "weight_decay", "clip", "warmup", "flip", "label_smoothing", "betas", "epochs"]
)
def test_a_training_has_one_key_for_equal_numbers(setting):
    whole, decimal = ([0, 0], [0.0, 0.0]) if setting == "betas" else (1, 1.0)
    if setting == "epochs":
        decimal = 1
    assert canonical_json(training.expand({setting: whole})) == canonical_json(
        training.expand({setting: decimal})
    )
    default = training.DEFAULTS[setting]
    expanded = training.expand({setting: list(default) if setting == "betas" else default})
    # Compared as values: a default of 1.0 keeps its spelling, see training.checked.
    assert expanded == training.expand({})

"""Records' JSON is written fast, and byte for byte as the standard library would with an indent."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engine.atomic import json_bytes

PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=25,
)


@given(VALUES)
def test_same_bytes_as_json_dumps(value):
    assert json_bytes(value) == (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


@given(st.dictionaries(st.integers() | st.booleans(), st.lists(st.integers())))
def test_same_bytes_with_keys_that_are_no_text(value):
    assert json_bytes(value) == (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": [{"b": float("nan")}]}])
def test_what_is_no_json_is_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        json_bytes(value)

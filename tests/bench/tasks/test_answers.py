"""One bit a picture: kept in the records of "evaluate" and "quantize", and read again."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from bench.tasks.answers import FIELD, pack, unpack
from bench.tasks.scoring import BATCH, answered_right, compare, top1


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_what_is_packed_is_read_again(right):
    text = pack(np.array(right))
    assert unpack({FIELD: text, "pictures": len(right)}).tolist() == right
    assert len(text) <= 4 * -(-len(right) // 24), "a bit a picture, in base64"


@pytest.mark.parametrize(
    "metrics", [{}, {FIELD: "gA=="}, {FIELD: "?", "pictures": 8}, {FIELD: "gA==", "pictures": 9}]
)
def test_records_that_do_not_say_say_nothing(metrics):
    assert unpack(metrics) is None


def test_the_bits_are_those_of_the_scores(tiny_vit):
    split = TensorDataset(torch.rand(BATCH + 9, 3, 16, 16), torch.arange(BATCH + 9) % 5)
    model, other = tiny_vit(), tiny_vit()
    with torch.no_grad():
        other.head.bias[0] += 0.02
    right = answered_right(other, split, "cpu")
    assert len(right) == len(split) and 100 * right.mean() == pytest.approx(top1(other, split, "cpu"))
    metrics = compare(model, other, split, "cpu", lambda *_: None, lambda: False)
    assert unpack(metrics).tolist() == right.tolist()
    assert metrics["top1"] == 100 * int(right.sum()) / len(right)

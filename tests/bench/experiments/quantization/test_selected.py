"""Kept patches: their share by place, and how far two choices agree."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.experiments.quantization.selected import agreement, share_kept


def masks(seed: int, pictures: int, patches: int, kept: int) -> torch.Tensor:
    order = torch.rand(pictures, patches, generator=torch.Generator().manual_seed(seed)).argsort(1)
    return torch.zeros(pictures, patches, dtype=torch.bool).scatter(1, order[:, :kept], True)


def test_shares_count_every_picture_once_whatever_set_it_is_of():
    first = torch.tensor([[True, False, True]])
    more = torch.tensor([[True, True, False], [True, False, True], [False, True, True]])
    assert share_kept([first, more]).tolist() == [0.75, 0.5, 0.75]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 99), st.integers(1, 5), st.integers(2, 30), st.data())
def test_agreement_is_whole_with_oneself_none_with_the_rest_and_the_same_either_way(
    seed, pictures, patches, data
):
    kept = data.draw(st.integers(1, patches // 2))
    mine, theirs = masks(seed, pictures, patches, kept), masks(seed + 1, pictures, patches, kept)
    assert agreement(mine, mine) == (1.0, pytest.approx(kept / patches))
    assert agreement(mine, theirs) == agreement(theirs, mine)
    if 2 * kept == patches:
        assert agreement(mine, ~mine)[0] == 0.0


def test_independent_choices_agree_as_chance_says():
    shared, chance = agreement(masks(0, 4000, 20, 5), masks(1, 4000, 20, 5))
    assert chance == 0.25 and shared == pytest.approx(chance, abs=0.01)

"""Weights as integers: what each grid does to rows that are far from zero."""

import pytest
import torch

from smi.quantizers import integer_weight, quantize_weight

FAR = torch.tensor([[5.0, 5.2, 5.5, 5.8, 6.0], [-6.0, -5.8, -5.4, -5.1, -5.0]])


def test_a_grid_with_free_zero_spends_its_levels_on_the_range_alone():
    error = (quantize_weight(FAR, 4, "asymmetric", "free_zero") - FAR).abs()
    assert error.max() <= 0.5 / 15 + 1e-6, "half a step of a range of width 1"


def test_any_other_grid_reaches_to_zero():
    for grid in ("zero_included", "clamped_zero"):
        whole = integer_weight(FAR, 4, "asymmetric", grid)
        torch.testing.assert_close(whole.scale.flatten(), torch.full((2,), 6 / 15))
        assert (whole.dequantized() - FAR).abs().max() <= 0.5 * 6 / 15 + 1e-6


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric", "floor"])
def test_integers_are_of_the_bits_and_stand_for_what_the_layer_uses(kind):
    weight = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    whole = integer_weight(weight, 4, kind)
    assert whole.codes.dtype == torch.int8 and whole.codes.min() >= -8 and whole.codes.max() <= 7
    assert quantize_weight(weight, 4, kind).equal(whole.dequantized())

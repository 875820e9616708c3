"""The page of claims: what is compared with what, and what the rule makes of it."""

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.experiments.quantization.claims import SECONDS, TOP1
from bench.publish import claims
from bench.publish.manifest import Sheet

MADE = {"device": "d", "device_type": "cpu", "versions": {}, "finished": "2026-01-01", "seconds": 1.0}
NUMBERS = st.integers(-100_000, 100_000).map(lambda thousandths: thousandths / 1000)


def sheet(top1, bits=("W4/A8",), experiment="quantization", grid="table3", scale="cifar"):
    """A published grid of two models and as many seeds as `top1[method]` has values for each."""
    cells, records = [], {}
    for method, values in top1.items():
        for model in ("a", "b"):
            for seed, value in enumerate(values):
                for width in bits:
                    name = f"quantize-{method}-{model}-{seed}-{width}"
                    cell = {
                        "model": model,
                        "dataset": "cifar10",
                        "method": method,
                        "bits": width,
                        "seed": seed,
                    }
                    cells.append({"cell": cell, "tasks": {"quantize": name}})
                    records[name] = {
                        "status": "done",
                        "metrics": {"top1": value + (model == "b"), "logit_error": 0.1},
                        "settings": {"test": {"form": "JPEG copies"}},
                        **MADE,
                    }
    about = {"subject": "small ViTs", "judged": True}
    return Sheet(grid, "t", experiment, scale, grid, about, "c", {}, {}, {}, cells, records)


def of(first, other, margin=None):
    claim = claims.Claim("c", "table3", "first", "other", (TOP1,), margin)
    (found,) = claims.pairs(sheet({"first": first, "other": other}), claim, TOP1).values()
    return claims.judged(claim, TOP1, found)


def test_pairs_are_of_the_same_model_and_seed():
    found = of([70.0, 71.0, 72.0], [60.0, 61.0, 62.0])
    assert found == "holds: +10.00 ± 0.00 (6)"
    assert of([70.0, 71.0, 72.0], [60.0]).endswith("(2)"), "a seed that only one row has makes no pair"


@pytest.mark.parametrize(
    ("first", "other", "margin", "verdict"),
    [
        ([70, 71, 72], [60, 60, 60], None, "holds"),
        ([60, 61, 60], [70, 70, 70], None, "does not hold"),
        ([60, 75, 68], [68, 68, 68], None, "cannot be told"),
        ([69.9, 70.0, 70.1], [70.1, 70.0, 70.1], 0.5, "holds"),  # slightly worse, but within the margin
        ([69.0, 69.1, 69.0], [70.0, 70.0, 70.0], 0.5, "does not hold"),
        ([60, 75, 68], [68, 68, 68], 0.5, "cannot be told"),
    ],
)
def test_the_interval_alone_decides(first, other, margin, verdict):
    assert of([float(v) for v in first], [float(v) for v in other], margin).partition(":")[0] == verdict


def test_less_is_better_where_the_measure_says_so():
    claim = claims.Claim("c", "table3", "first", "other", (SECONDS,))
    assert claims.judged(claim, SECONDS, [-5.0, -5.1, -4.9]).startswith("holds")
    assert claims.judged(claim, SECONDS, [5.0, 5.1, 4.9]).startswith("does not")


@settings(deadline=None)
@given(st.lists(NUMBERS, min_size=2, max_size=12), NUMBERS)
def test_the_interval_moves_with_its_values_and_holds_their_mean(values, shift):
    mean, half = claims.interval(values)
    assert mean == statistics.fmean(values) and half >= 0
    moved, same = claims.interval([value + shift for value in values])
    assert moved == pytest.approx(mean + shift, abs=1e-9) and same == pytest.approx(half, abs=1e-6)
    assert claims.interval([value * -1 for value in values])[1] == pytest.approx(half)


def test_one_pair_tells_nothing():
    assert claims.interval([3.0]) == (3.0, math.inf)
    claim = claims.Claim("c", "table3", "first", "other", (TOP1,))
    assert claims.judged(claim, TOP1, [3.0]) == "cannot be told: +3.00 (1)"


def test_the_page_names_the_data_the_rule_and_what_was_not_run():
    two = sheet({"deepinversion_dense": [70.0, 71.0], "gaussian_noise": [40.0, 42.0]}, ("W4/A8", "W8/A8"))
    page = claims.text("cifar", {"table3": two})
    assert "JPEG copies" in page and "95% confidence interval" in page
    lines = [line for line in page.splitlines() if line.startswith("| Noise calibrates worse")]
    assert len(lines) == 2 and lines[0].count("holds: ") == 2, "two measures, two bit-widths"
    assert "not run" in next(line for line in page.splitlines() if line.startswith("| The same of PSAQ-ViT"))
    assert "## From kd\n\nnot run" in page

"""The page of claims: what is compared with what, and what the rule makes of it."""

import csv
import statistics
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.experiments.quantization.claims import SECONDS, TOP1
from bench.publish.claims import Claim, page
from bench.publish.claims.inference import effect
from bench.publish.claims.lines import FAILS, HOLDS, OPEN, SAME, Line, judge, pairs
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


def line(first, other, margin=None, measure=TOP1):
    claim = Claim("c", "table3", "first", "other", (measure,), margin)
    ((where, found),) = pairs(sheet({"first": first, "other": other}), claim, measure).items()
    return Line(claim, measure, where, found)


def verdict_of(one):
    """Of the only line of a page."""
    (judged,) = judge([one])
    return judged.verdict


def test_pairs_are_of_the_same_model_and_seed():
    found = line([70.0, 71.0, 72.0], [60.0, 61.0, 62.0])
    assert found.differences == {"a": [10.0] * 3, "b": [10.0] * 3} and verdict_of(found) == HOLDS
    only = line([70.0, 71.0, 72.0], [60.0])
    assert only.differences == {"a": [10.0], "b": [10.0]}, "a seed that only one row has makes no pair"


def test_pairs_agree_in_every_axis_but_the_method():
    """Two data sets and two pools, of one model and one seed: two teachers and two places, and no pair across."""
    made = sheet({"first": [70.0], "other": [60.0]})
    cells, records = [], {}
    for dataset, pool, shift in (("x", "p", 0), ("x", "q", 1), ("y", "p", 2), ("y", "q", 3)):
        for entry in made.cells:
            names = {column: f"{name}-{dataset}{pool}" for column, name in entry["tasks"].items()}
            cells.append({"cell": {**entry["cell"], "dataset": dataset, "pool": pool}, "tasks": names})
            for column, name in names.items():
                record = made.records[entry["tasks"][column]]
                more = shift if entry["cell"]["method"] == "first" else 0
                metrics = {**record["metrics"], "top1": record["metrics"]["top1"] + more}
                records[name] = {**record, "metrics": metrics}
    claim = Claim("c", "table3", "first", "other", (TOP1,))
    assert pairs(replace(made, cells=cells, records=records), claim, TOP1) == {
        "W4/A8, p": {"a on x": [10.0], "b on x": [10.0], "a on y": [12.0], "b on y": [12.0]},
        "W4/A8, q": {"a on x": [11.0], "b on x": [11.0], "a on y": [13.0], "b on y": [13.0]},
    }


def test_what_several_places_share_is_one_line():
    made = sheet({"first": [5.0, 5.1], "other": [7.0, 7.0]}, ("W4/A8", "W8/A8", "W4/A4"))
    for entry in made.cells:
        name = entry["tasks"]["quantize"].rpartition("-")[0].replace("quantize", "images")
        entry["tasks"]["images"] = name
        made.records[name] = {"status": "done", "metrics": {"seconds": 1.0 + ("first" in name)}, **MADE}
    claim = Claim("c", "table3", "first", "other", (SECONDS,))
    assert pairs(made, claim, SECONDS) == {"all": {"a": [1.0, 1.0], "b": [1.0, 1.0]}}


@pytest.mark.parametrize(
    ("first", "other", "margin", "verdict"),
    [
        ([70, 71, 72], [60, 60, 60], None, HOLDS),
        ([60, 61, 60], [70, 70, 70], None, FAILS),
        ([60, 75, 68], [68, 68, 68], None, OPEN),
        ([70.0, 70.1, 70.0], [70.1, 70.0, 70.0], None, SAME),
        ([69.9, 70.0, 70.1], [70.1, 70.0, 70.1], 0.5, HOLDS),  # slightly worse, but within the margin
        ([69.0, 69.1, 69.0], [70.0, 70.0, 70.0], 0.5, FAILS),
        ([60, 75, 68], [68, 68, 68], 0.5, OPEN),
    ],
)
def test_the_p_values_decide(first, other, margin, verdict):
    one = line([float(v) for v in first], [float(v) for v in other], margin)
    assert verdict_of(one) == verdict
    (judged,) = judge([one])
    assert (judged.more is not None and judged.more > 0) == (verdict == OPEN)


def test_less_is_better_where_the_measure_says_so():
    claim = Claim("c", "table3", "first", "other", (SECONDS,))
    assert verdict_of(Line(claim, SECONDS, "all", {"a": [-5.0, -5.1, -4.9]})) == HOLDS
    assert verdict_of(Line(claim, SECONDS, "all", {"a": [5.0, 5.1, 4.9]})) == FAILS


@settings(deadline=None)
@given(st.lists(NUMBERS, min_size=2, max_size=12), NUMBERS)
def test_the_interval_moves_with_its_values_and_holds_their_mean(values, shift):
    found, moved = effect({"a": values}), effect({"a": [value + shift for value in values]})
    assert found.mean == statistics.fmean(values) and found.half >= 0
    assert moved.mean == pytest.approx(found.mean + shift, abs=1e-9)
    assert moved.half == pytest.approx(found.half, abs=1e-6)
    assert effect({"a": [value * -1 for value in values]}).half == pytest.approx(found.half)


def test_one_pair_tells_nothing():
    claim = Claim("c", "table3", "first", "other", (TOP1,))
    (judged,) = judge([Line(claim, TOP1, "W4/A8", {"a": [3.0]})])
    assert judged.verdict == OPEN and judged.more is None
    assert page.verdict(judged) == "cannot be told"


def test_the_more_lines_a_page_has_the_more_each_has_to_show():
    weak = line([70.2, 70.9, 71.5], [70.0, 70.0, 70.0])
    assert verdict_of(weak) == HOLDS
    assert {one.verdict for one in judge([weak] * 20)} == {OPEN}


def test_a_line_whose_margin_exceeds_all_damage_says_so():
    made = sheet(
        {"deepinversion_sparse": [70.0, 70.1], "deepinversion_dense": [70.1, 70.0]}, ("W4/A8", "W8/A8")
    )
    for name, record in made.records.items():
        record["metrics"]["reference_top1"] = record["metrics"]["top1"] + (0.3 if "W8/A8" in name else 3.0)
    text = page.text("cifar", {"table3": made})
    rows = [row for row in text.splitlines() if row.startswith("| top-1 (points)")]
    assert len(rows) == 2 and "assay" not in rows[0] and "no assay sensitivity" in rows[1]


def test_the_page_names_the_data_the_rule_and_what_was_not_run():
    two = sheet({"deepinversion_dense": [70.0, 71.0], "gaussian_noise": [40.0, 42.0]}, ("W4/A8", "W8/A8"))
    text = page.text("cifar", {"table3": two})
    assert "JPEG copies" in text and "95% confidence interval" in text and "these teachers" in text
    part = text.partition("### Noise calibrates worse")[2].partition("\n### ")[0]
    lines_ = [row for row in part.splitlines() if row.startswith(("| top-1", "| logit"))]
    assert len(lines_) == 4 and sum(" holds " in row for row in lines_) == 2, "two measures, two bit-widths"
    assert "not run" in text.partition("### The same of PSAQ-ViT")[2].partition("\n### ")[0]
    assert "## From kd\n\nnot run" in text


def test_plot_and_data_stand_beside_the_page_and_are_the_same_each_time(tmp_path):
    made = sheet({"deepinversion_dense": [70.0, 71.0], "gaussian_noise": [40.0, 42.0]})
    files = {}
    for place in ("one", "two"):
        (tmp_path / place / "cifar").mkdir(parents=True)
        assert page.write(tmp_path / place, [made]) == [tmp_path / place / "cifar" / "README.md"]
        files[place] = {p.name: p.read_bytes() for p in (tmp_path / place / "cifar").iterdir()}
    assert set(files["one"]) == {"README.md", "claims.csv", "claims.png", "claims.svg"}
    assert files["one"] == files["two"]
    rows = list(csv.DictReader(files["one"]["claims.csv"].decode().splitlines()))
    assert [row["where"] for row in rows] == ["W4/A8", "W4/A8"]
    assert float(rows[0]["mean"]) == 29.5 and rows[0]["each_teacher"] == "a 29.5; b 29.5"

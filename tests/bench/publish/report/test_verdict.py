"""What stands at the top of a report, of the published results."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.engine.provenance import ROOT
from bench.publish.claims.lines import judge, lines
from bench.publish.report.contents import collect
from bench.publish.report.verdict import Axis, verdicts


@pytest.fixture(scope="module")
def cifar():
    return collect(ROOT / "results" / "cifar")


@pytest.fixture(scope="module")
def digits():
    return collect(ROOT / "results" / "digits")


def test_the_axis_is_symmetric_grows_and_ends_at_its_ends():
    axis = Axis(50.0)
    places = [axis.place(value) for value in (-1e9, -50, -5, -1, -0.5, 0, 0.5, 1, 5, 50, 1e9)]
    assert places == sorted(places) and places[0] == places[1] == 0 and places[-1] == 100
    assert all(low + high == pytest.approx(100) for low, high in zip(places, reversed(places), strict=True))
    assert [label for _, label in axis.ticks()] == ["-10", "-1", "0", "+1", "+10"]


def test_the_top_counts_the_verdicts_of_the_page_of_claims(cifar):
    found = verdicts(cifar.sheets)
    count = Counter(one.verdict for one in judge(lines(cifar.sheets)))
    assert {name: number for _, _, number, name in found["counts"]} == dict(count)
    assert sum(len(claim["lines"]) for claim in found["claims"]) == sum(count.values())
    page = next(table for table in cifar.tables if table.name == "README").markdown
    assert found["said"].split()[0] == page.split(" lines are decided")[0].split("**")[-1].split()[0]


def test_right_is_the_side_of_the_claim_also_where_less_is_better(cifar):
    shown = [line for claim in verdicts(cifar.sheets)["claims"] for line in claim["lines"]]
    less = [line for line in shown if line["measure"] in ("logit error", "seconds of an inversion")]
    assert {line["style"] for line in less} >= {"fails"}, "lines on the other side are among them"
    for line in less:
        assert (line["point"] > 50) == line["shown"].startswith("-")
        assert line["interval"][0] < line["point"] < line["interval"][1]
        assert line["style"] != ("holds" if line["point"] < 50 else "fails")


def test_a_scale_that_is_not_judged_shows_differences_and_no_verdict(digits):
    found = verdicts(digits.sheets)
    assert not found["told"] and found["counts"] == [] and found["claims"]
    assert {line["verdict"] for claim in found["claims"] for line in claim["lines"]} == {""}


def test_the_main_table_has_the_papers_figures_beside_ours_and_says_whose_they_are(cifar):
    main = cifar.summaries()[0]
    named = [column for column in main.columns if column.paper]
    assert main.name == "table3" and named and all("DeiT/16-Tiny" in column.name for column in named)
    row = next(
        one for one in main.rows if one["method"].shown == "Gaussian noise" and one["bits"].shown == "W4/A8"
    )
    assert row["paper's lost, DeiT/16-Tiny"].number == pytest.approx(72.14 - 7.80)
    full = next(
        one for one in main.rows if one["bits"].shown == "full precision" and one["model"] == row["model"]
    )
    assert row["lost"].number == pytest.approx(full["top-1"].number - row["top-1"].number)

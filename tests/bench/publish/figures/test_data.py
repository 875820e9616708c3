"""The CSV beside a figure says what is drawn."""

from __future__ import annotations

import csv

from matplotlib.figure import Figure as Canvas
from PIL import Image

from bench.publish.figures.data import rows_of, write
from bench.publish.figures.kinds import Animation, Still


def plotted() -> Canvas:
    canvas = Canvas()
    left, right = canvas.subplots(1, 2)
    left.errorbar([1, 2], [10.0, 20.0], [1.0, 2.0], capsize=2, label="a, with commas")
    left.axhline(5.0)  # a guide, no series
    right.plot([3], [4], label="b")
    left.set(title="first", xlabel="seconds", ylabel="top-1")
    return canvas


def test_lines_and_bars_as_they_were_drawn(tmp_path):
    name = write(Still(plotted(), "", vector=True), tmp_path, "plot")
    with (tmp_path / name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = [(row["panel"], row["series"], row["x"], row["y"], row["y low"], row["y high"]) for row in rows]
    assert shown == [
        ("first", "a, with commas", "1", "10", "9", "11"),
        ("first", "a, with commas", "2", "20", "18", "22"),
        ("2", "b", "3", "4", "", ""),
    ]
    assert rows[0]["x axis"] == "seconds" and rows[0]["y axis"] == "top-1"


def test_a_figures_own_rows_go_first():
    own = [{"patch": 1, "share": 0.5}]
    assert rows_of(Still(plotted(), "", vector=True, data=own)) == own


def test_pictures_have_no_table_and_an_old_one_is_taken_away(tmp_path):
    (tmp_path / "plot.csv").write_text("old")
    assert write(Still(plotted(), ""), tmp_path, "plot") == ""
    assert write(Animation([Image.new("RGB", (2, 2))], [10], ""), tmp_path, "plot") == ""
    assert not (tmp_path / "plot.csv").exists()

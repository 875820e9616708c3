"""Tables for the report: filters and bars."""

from __future__ import annotations

from bench.publish.summary import Column, Summary, Value

COLUMNS = (
    Column("method"),
    Column("model"),
    Column("lost", "lost"),
    Column("paper's lost", "lost", paper=True),
)


def row(method: str, model: str, ours: float | None, theirs: float | None) -> dict[str, Value]:
    figures = {"lost": ours, "paper's lost": theirs}
    return {"method": Value(method), "model": Value(model)} | {
        name: Value(str(number), number) for name, number in figures.items()
    }


ROWS = [row("a", "small", 2, 8), row("b", "small", -1, None), row("a", "large", 100, None)]
TABLE = Summary("t", "T", "", COLUMNS, ROWS)


def test_bars_of_one_scale_are_shares_of_the_models_largest_figure():
    assert TABLE.share(ROWS[0], COLUMNS[2]) == 0.25
    assert TABLE.share(ROWS[0], COLUMNS[3]) == 1.0
    assert TABLE.share(ROWS[2], COLUMNS[2]) == 1.0


def test_a_figure_below_zero_has_an_empty_bar_and_a_missing_one_none():
    assert TABLE.share(ROWS[1], COLUMNS[2]) == 0.0
    assert TABLE.share(ROWS[1], COLUMNS[3]) is None
    assert TABLE.share(ROWS[0], COLUMNS[0]) is None


def test_only_axes_with_a_choice_are_filters():
    assert TABLE.choices() == {"model": ["small", "large"], "method": ["a", "b"]}
    assert Summary("t", "T", "", COLUMNS, ROWS[:1]).choices() == {}

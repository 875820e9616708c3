"""A table to be read at a glance: plain values beside what is shown, so that a page can sort, filter and draw bars.

An experiment makes its own (bench.experiments.Experiment.summaries); the report shows them (bench/publish/report).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

AXES = ("model", "method", "bits")


@dataclass(frozen=True)
class Value:
    """What a cell shows, and the number that it is sorted by and that its bar is as long as; None: there is none.
    style: a class of page.css, of a verdict."""

    shown: str
    number: float | None = None
    style: str = ""


@dataclass(frozen=True)
class Column:
    """bar: columns of one name share a scale, on which each model's largest figure is a whole bar; "" for no bars.
    paper: what the paper reports, never measured here."""

    name: str
    bar: str = ""
    paper: bool = False


@dataclass(frozen=True)
class Summary:
    """rows: column -> Value, with every column of `columns`; note: how to read it, plain text; axes: columns that rows
    may be filtered by, where they are there."""

    name: str
    title: str
    note: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Value]]
    axes: Sequence[str] = AXES

    def choices(self) -> dict[str, list[str]]:
        """Axis -> what it shows in the rows, for axes of which there is more than one value."""
        named = {column.name for column in self.columns}
        found = {
            axis: list(dict.fromkeys(row[axis].shown for row in self.rows))
            for axis in self.axes
            if axis in named
        }
        return {axis: values for axis, values in found.items() if len(values) > 1}

    def share(self, row: Mapping[str, Value], column: Column) -> float | None:
        """Length of a cell's bar, 0 to 1; None for none."""
        number = row[column.name].number
        if not column.bar or number is None:
            return None
        alike = [other for other in self.rows if "model" not in row or other["model"] == row["model"]]
        names = [other.name for other in self.columns if other.bar == column.bar]
        most = max(found for other in alike for name in names if (found := other[name].number) is not None)
        return max(0.0, number) / most if most > 0 else 0.0

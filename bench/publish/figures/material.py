"""What figures are drawn from: the published sheets of a results folder, their records, and images in the store.

Nothing is computed here and nothing is run: where a record is not there, the figure is not made and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import smi
from bench.engine import atomic
from bench.engine.store import Record, Store
from bench.publish import manifest, scale_notes
from bench.publish.figures.style import drawn
from bench.publish.manifest import Sheet
from bench.publish.parts import method_title
from bench.tasks.images import FILE


class NotMade(Exception):
    """A figure's records are not there; the message says which, and the command that makes them."""


@dataclass(frozen=True)
class Row:
    """One cell of a grid and the records of its tasks, by column; inputs of tasks are columns too."""

    cell: Mapping[str, Any]
    records: Mapping[str, Record]

    def metrics(self, column: str) -> Mapping[str, Any]:
        return self.records[column]["metrics"]

    def place(self, *free: str) -> dict[str, Any]:
        """Its cell less the axes that are free."""
        return {axis: value for axis, value in self.cell.items() if axis not in free}


@dataclass(frozen=True)
class Material:
    """The published grids of one scale, by name, and the store that holds the images.

    used: grid -> the rows that a figure has asked for, for its provenance.
    """

    scale: str
    sheets: Mapping[str, Sheet]
    store: Path
    used: dict[str, list[Row]] = field(default_factory=dict)

    @property
    def scale_line(self) -> str:
        """Plain text; `style.drawn` makes it a figure's."""
        return scale_notes.line(self.scale, *self.sheets.values())

    def afresh(self) -> Material:
        """The same material, nothing used yet."""
        return replace(self, used={})

    def sheet(self, grid: str) -> Sheet:
        """A published grid. Raises NotMade with the command that makes it."""
        if grid not in self.sheets:
            raise NotMade(f"the grid {grid!r} was not run at this scale; run it: {self.command(grid)}")
        return self.sheets[grid]

    def rows(self, grid: str, *columns: str) -> list[Row]:
        """The cells of a grid whose tasks in these columns are done, in its order. NotMade if there are none."""
        rows = list(self._rows(self.sheet(grid), columns))
        if not rows:
            raise NotMade(f"no finished {columns[-1]} of {grid}; make them: {self.command(grid)}")
        self.used[grid] = rows
        return rows

    def images(self, record: Record) -> smi.SyntheticImages:
        """The images that a finished task of kind "images" made. NotMade if the store does not hold them as made."""
        name = f"{record['kind']}-{record['key']}"
        path = Store(self.store).artifacts_named(name) / FILE
        if not path.is_file() or atomic.sha256_of(path) != record["artifacts"][FILE]["sha256"]:
            raise NotMade(f"the store does not hold the images of {record['label']} ({name}) as made")
        return smi.SyntheticImages.load(path)

    def title(self, grid: str, method: str) -> str:
        """How the grid calls a method, as text to draw."""
        return drawn(method_title(self.sheet(grid), method))

    def subject(self, grid: str, cell: Mapping[str, Any]) -> str:
        """A cell's model, and its data set where the grid has several."""
        several = len({entry["cell"].get("dataset") for entry in self.sheet(grid).cells}) > 1
        return f"{cell['model']} on {cell['dataset']}" if several else str(cell["model"])

    def command(self, grid: str) -> str:
        """What makes a grid's records: as it was given, where it was."""
        if grid in self.sheets:
            return self.sheets[grid].command
        return f"python -m bench.sweep --grid experiments/{grid}.yaml --scale {self.scale}"

    def _rows(self, sheet: Sheet, columns: tuple[str, ...]) -> Iterator[Row]:
        for entry in sheet.cells:
            records = {
                column: record
                for column, name in entry["tasks"].items()
                if (record := sheet.records.get(name)) is not None and record["status"] == "done"
            }
            if all(column in records for column in columns):
                yield Row(entry["cell"], records)


def gather(results: Path, scale: str, store: Path) -> Material:
    """Everything published of a scale. Raises BenchError for a damaged sheet."""
    sheets = {sheet.grid: sheet for sheet in manifest.sheets(results) if sheet.scale == scale}
    return Material(scale, sheets, store)

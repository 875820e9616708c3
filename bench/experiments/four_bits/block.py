"""The cells of one model on one data set, and figures of them over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.engine.store import Record
from bench.publish import told_apart
from bench.publish.manifest import Sheet
from bench.publish.parts import NOT_RUN, NOTHING, difference, holes, mean_std, model_title, status, telling

PLACE = ("model", "dataset")
ROW = ("method", "quantizer", "bits", "seed")
DATA_FREE = ("noise", "inversion")  # sources of images that need no data


@dataclass(frozen=True)
class Block:
    """entries: the sheet's cells (Sheet.cells) of this model, data set and whatever else tells cells apart (`more`)."""

    sheet: Sheet
    model: str
    dataset: str
    more: tuple[str, ...]
    entries: tuple[Mapping[str, Any], ...]

    @property
    def title(self) -> str:
        return ", ".join([f"{model_title(self.model)} on {self.dataset}", *self.more])

    @property
    def sources(self) -> list[str]:
        """The methods that make images to calibrate on."""
        return [name for name in self._values("method") if self._source(name) != "none"]

    @property
    def data_free(self) -> list[str]:
        return [name for name in self.sources if self._source(name) in DATA_FREE]

    @property
    def quantizers(self) -> list[str]:
        return self._values("quantizer")

    @property
    def bits(self) -> list[str]:
        return self._values("bits")

    def full_precision(self) -> Record | None:
        """The finished record of the model itself."""
        for entry in self.entries:
            record = self.sheet.records.get(entry["tasks"].get("evaluate", ""))
            if record is not None and record["status"] == "done":
                return record
        return None

    def done(
        self, method: str, quantizer: str | None = None, bits: str | None = None, column: str = "quantize"
    ) -> dict[tuple[Any, ...], Record]:
        """Finished records of a row by (quantizer, bits, seed); of all quantizers or bit-widths unless one is named."""
        found = {}
        for cell, tasks in self._cells(method, quantizer, bits):
            record = self.sheet.records.get(tasks.get(column, ""))
            if record is not None and record["status"] == "done":
                found[cell["quantizer"], cell["bits"], cell["seed"]] = record
        return found

    def mean(self, method: str, quantizer: str, bits: str, metric: str = "top1") -> float | None:
        records = self.done(method, quantizer, bits).values()
        return statistics.fmean(record["metrics"][metric] for record in records) if records else None

    def shown(self, method: str, quantizer: str, bits: str, metric: str, factor: float = 1) -> str:
        """Mean ± sample standard deviation over seeds (n), with its holes; `factor` times the metric."""
        cells = list(self._cells(method, quantizer, bits))
        if not cells:
            return NOTHING
        values = [
            factor * record["metrics"][metric] for record in self.done(method, quantizer, bits).values()
        ]
        missing = holes(status(tasks, "quantize", self.sheet.records) for _, tasks in cells)
        if not values:
            return missing or NOT_RUN
        return mean_std(values) + (f", {missing}" if missing else "")

    def best(self, quantizer: str, bits: str) -> str | None:
        """The data-free source with the greatest mean top-1, of those with as many finished seeds as any has."""
        counts = {name: len(self.done(name, quantizer, bits)) for name in self.data_free}
        most = max(counts.values(), default=0)
        whole = [name for name, count in counts.items() if count == most]
        return max(whole, key=lambda name: self.mean(name, quantizer, bits) or 0) if most else None

    def less(self, method: str, other: str, quantizer: str, bits: str) -> str:
        """Top-1 of a row less that of another of the same quantizer, seed by seed, and whether they are told apart."""
        first, second = (self.done(name, quantizer, bits) for name in (method, other))
        return _difference([(first[key], second[key]) for key in first if key in second])

    def less_full_precision(self, method: str, quantizer: str, bits: str) -> str:
        full = self.full_precision()
        if full is None:
            return NOTHING
        return _difference([(record, full) for record in self.done(method, quantizer, bits).values()])

    def _cells(self, method: str, quantizer: str | None, bits: str | None) -> Iterator[tuple[Any, Any]]:
        wanted = {"method": method, "quantizer": quantizer, "bits": bits}
        for entry in self.entries:
            if all(value in (None, entry["cell"][axis]) for axis, value in wanted.items()):
                yield entry["cell"], entry["tasks"]

    def _values(self, axis: str) -> list[str]:
        return list(dict.fromkeys(entry["cell"][axis] for entry in self.entries))

    def _source(self, method: str) -> str:
        return str(self.sheet.methods[method]["source"])


def blocks(sheet: Sheet) -> list[Block]:
    """The sheet's cells by model and data set, in the grid's order."""
    more = telling((entry["cell"] for entry in sheet.cells), *PLACE, *ROW)
    parts: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for entry in sheet.cells:
        place = tuple(str(entry["cell"].get(axis, NOTHING)) for axis in (*PLACE, *more))
        parts.setdefault(place, []).append(entry)
    return [Block(sheet, key[0], key[1], key[2:], tuple(entries)) for key, entries in parts.items()]


def _difference(pairs: list[tuple[Record, Record]]) -> str:
    """`-0.30 (5), told apart: 1 of 5`: the mean difference of top-1, the first less the second."""
    if not pairs:
        return NOTHING
    mean = statistics.fmean(first["metrics"]["top1"] - other["metrics"]["top1"] for first, other in pairs)
    said = told_apart.said(pairs)
    return f"{difference(mean, 0.0)} ({len(pairs)})" + (f", {said}" if said else "")

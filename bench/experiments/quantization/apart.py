"""Which rows of Table 3 are told apart, two models of one seed at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.experiments.quantization.claims import CLAIMS
from bench.publish import told_apart
from bench.publish.manifest import Sheet
from bench.publish.parts import NOTHING, method_title, telling

ROW = ("model", "method", "bits", "seed")  # axes that a row of the table always tells apart


def rows(sheet: Sheet) -> list[dict[str, str]]:
    """The rows that claims hold against each other: their differences of top-1, and whether their models are told
    apart, seed by seed; none where no record says which pictures were answered right."""
    place = [*ROW[:1], *telling((entry["cell"] for entry in sheet.cells), *ROW)]
    all_bits = list(dict.fromkeys(entry["cell"]["bits"] for entry in sheet.cells))
    by_cell = {
        tuple(cell.get(axis) for axis in ("method", "bits", "seed", *place)): sheet.records.get(
            entry["tasks"].get("quantize", "")
        )
        for entry in sheet.cells
        for cell in [entry["cell"]]
    }
    found = []
    for values in dict.fromkeys(tuple(entry["cell"].get(axis) for axis in place) for entry in sheet.cells):
        for first, other in dict.fromkeys((claim.first, claim.other) for claim in CLAIMS):
            row = {axis: str(value) for axis, value in zip(place, values, strict=True)}
            row["first less other"] = " less ".join(method_title(sheet, method) for method in (first, other))
            seeds = dict.fromkeys(key[2] for key in by_cell if key[0] == first and key[3:] == values)
            for bits in all_bits:
                both = [
                    tuple(by_cell.get((m, bits, seed, *values)) for m in (first, other)) for seed in seeds
                ]
                row[bits] = _apart(both)
            if any(row[bits] != NOTHING for bits in all_bits):
                found.append(row)
    return found


def _apart(both: Sequence[tuple[Any, Any]]) -> str:
    said = told_apart.said(both)
    done = [pair for pair in both if all(one is not None and one["status"] == "done" for one in pair)]
    if not said:
        return NOTHING
    mean = sum(first["metrics"]["top1"] - other["metrics"]["top1"] for first, other in done) / len(done)
    return f"{mean:+.2f}, {said}"

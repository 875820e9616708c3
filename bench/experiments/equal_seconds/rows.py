"""What the table and the figure of equal seconds are made from: the finished transfers of a method and a pool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.publish.manifest import Sheet
from bench.publish.parts import status

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Taught:
    """A student that has learnt. seconds: of the inversions behind its pool, optimisation alone; 0 where there are
    none."""

    top1: float
    images: int
    seconds: float


def panels(sheet: Sheet) -> dict[tuple[str, str], list[Entry]]:
    """(model, data set) -> cells, in the grid's order."""
    found: dict[tuple[str, str], list[Entry]] = {}
    for entry in sheet.cells:
        found.setdefault((entry["cell"]["model"], entry["cell"]["dataset"]), []).append(entry)
    return found


def groups(entries: Sequence[Entry]) -> dict[tuple[str, str], list[Entry]]:
    """(method, pool) -> cells, one a seed."""
    found: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        found.setdefault((entry["cell"]["method"], entry["cell"]["pool"]), []).append(entry)
    return found


def taught(sheet: Sheet, entries: Sequence[Entry]) -> Iterator[Taught]:
    """The finished ones among some cells."""
    for entry in entries:
        if status(entry["tasks"], "transfer", sheet.records) != "done":
            continue
        metrics = sheet.records[entry["tasks"]["transfer"]]["metrics"]
        sets = [name for column, name in entry["tasks"].items() if column.startswith("images_")]
        seconds = [sheet.records.get(name, {}).get("metrics", {}).get("seconds", 0.0) for name in sets]
        yield Taught(metrics["top1"], metrics["images"], sum(seconds))

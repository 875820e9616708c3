"""What the table and the figure of equal seconds are made from: the finished transfers of a method and a pool."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.publish.manifest import Sheet
from bench.publish.parts import Entry, status


@dataclass(frozen=True)
class Taught:
    """A student that has learnt. seconds: of the inversions behind its pool, optimisation alone; 0 where there are
    none."""

    top1: float
    images: int
    seconds: float


def taught(sheet: Sheet, entries: Sequence[Entry]) -> Iterator[Taught]:
    """The finished ones among some cells."""
    for entry in entries:
        if status(entry["tasks"], "transfer", sheet.records) != "done":
            continue
        metrics = sheet.records[entry["tasks"]["transfer"]]["metrics"]
        sets = [name for column, name in entry["tasks"].items() if column.startswith("images_")]
        seconds = [sheet.records.get(name, {}).get("metrics", {}).get("seconds", 0.0) for name in sets]
        yield Taught(metrics["top1"], metrics["images"], sum(seconds))

"""Published files of grids (results/<scale>/records/<grid>.jsonl), changed as tests need them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Change = Callable[[dict[str, Any]], dict[str, Any] | None]


def lines(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """(sheet, cells, records) of a file."""
    values = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    cells = values[0]["cells"]
    return values[0], values[1 : 1 + cells], values[1 + cells :]


def change_records(path: Path, change: Change) -> None:
    """Write a file anew with its records changed; those for which `change` returns None are left out."""
    sheet, cells, records = lines(path)
    kept = [changed for record in records if (changed := change(record)) is not None]
    write(path, {**sheet, "records": len(kept)}, cells, kept)


def write(path: Path, sheet: dict[str, Any], cells: list[Any], records: list[Any]) -> None:
    values = [sheet, *cells, *records]
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")

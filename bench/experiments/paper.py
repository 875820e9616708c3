"""The paper's figures, read from bench/experiments/paper.yaml: the one place that says what the paper reports."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from bench.grid import yaml_file


@cache
def load() -> dict[str, Any]:
    """Everything in paper.yaml: tables (lists of rows), conventions, known disagreements, others' figures."""
    return yaml_file.read(Path(__file__).with_name("paper.yaml")).value


def rows(table: str) -> list[dict[str, Any]]:
    """The rows of one of the paper's tables ("table1", "table3", "table4", or "others")."""
    return load()[table]


def figure(table: str, column: str, **where: Any) -> float | None:
    """The figure in `column` of the first row that matches `where`, or None where the paper has none."""
    for row in rows(table):
        if all(row.get(name) == value for name, value in where.items()):
            return row.get(column)
    return None

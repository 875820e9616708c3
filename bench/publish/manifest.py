"""What stands under results/<scale>/records/: one file per grid with its cells and the small records behind its table.

`<grid>.jsonl` holds one JSON value a line: first the sheet, which says what the grid is and how many cells and records
follow; then its cells, each with the names of the records that fill it; then the records, by name. A record of two
grids stands in both files. Tables are made from these files alone. Nothing here is ever read by a sweep: a fresh clone
computes everything itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.engine import atomic
from bench.engine.plan import CellTasks, make_plan
from bench.engine.store import Record, Store
from bench.engine.task import Task
from bench.errors import BenchError
from bench.experiments import EXPERIMENTS
from bench.grid import PAPER_SCALE, Grid

SUFFIX = ".jsonl"
# Of no use to a reader, or nobody's business: where on which machine it ran.
PRIVATE = ("host", "log", "digest", "slurm_job_id", "slurm")


@dataclass(frozen=True)
class Sheet:
    """One grid at one scale.

    table: stem of the table's file. about: what the scale is, in the grid's words (bench.grid.About).
    methods: label -> as in the grid file. paper: the grid's paper scale (axes and settings), from which closed-form
    costs of the real models are computed at every scale; {} if it has none.
    cells: [{"cell": {axis: value}, "tasks": {column: record name}}]; inputs of the tasks are columns too.
    records: record name -> record, of those that are there. quoted: the same of all finished records of the experiment
    that the table quotes (bench.experiments), from whatever published grid; part of no sheet's file.
    """

    grid: str
    title: str
    experiment: str
    scale: str
    table: str
    about: Mapping[str, Any]
    command: str
    methods: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    paper: Mapping[str, Any]
    cells: Sequence[Mapping[str, Any]]
    records: Mapping[str, Record] = field(default_factory=dict)
    quoted: Mapping[str, Record] = field(default_factory=dict)


def publish(
    grid: Grid, scale: str, cells: Sequence[CellTasks], store: Store, results: Path, command: str
) -> None:
    """Write the file of a grid, whole or not at all.

    BenchError, with nothing written, where another grid's table of this scale has the same name.
    """
    folder = results / scale / "records"
    folder.mkdir(parents=True, exist_ok=True)
    table = grid.table or grid.name
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        if path.stem != grid.name and _table_of(path) == table:
            raise BenchError(
                f"{results / scale / table}.md is the table of the grid {path.stem}: give {grid.path} another name or "
                f"`table:`, or other --results; what has been computed is kept"
            )
    records = {}
    for task in make_plan(cells).tasks:
        record = store.record(task)
        if record is not None:
            records[task.name] = _public(record)
    paper = grid.scales.get(PAPER_SCALE)
    sheet = {
        "grid": grid.name,
        "title": grid.title,
        "experiment": grid.experiment,
        "scale": scale,
        "table": table,
        "about": grid.scale(scale).about.model_dump(),
        "command": command,
        "methods": grid.methods,
        "settings": grid.scale(scale).settings,
        "paper": {} if paper is None else {"axes": paper.axes, "settings": paper.settings},
        "cells": len(cells),
        "records": len(records),
    }
    lines = [sheet, *({"cell": dict(entry.cell), "tasks": _columns(entry.tasks)} for entry in cells)]
    lines += [records[name] for name in sorted(records)]
    text = "".join(json.dumps(line, sort_keys=True, allow_nan=False) + "\n" for line in lines)
    atomic.write_text(folder / f"{grid.name}{SUFFIX}", text)


def file_name(sheet: Sheet) -> str:
    """Of the grid's table, below results/<scale>/."""
    return f"{sheet.table}.md"


def sheets(results: Path) -> list[Sheet]:
    """Every published sheet with its records, by scale and grid. BenchError for a damaged one."""
    found, damaged = readable(results)
    if damaged:
        raise damaged[0]
    return found


def readable(results: Path) -> tuple[list[Sheet], list[BenchError]]:
    """The published sheets that are whole, by scale and grid, and what is wrong with the others."""
    found, damaged = [], []
    for path in sorted(results.glob(f"*/records/*{SUFFIX}")):
        try:
            found.append(_read(path))
        except BenchError as error:
            damaged.append(error)
    for path in sorted(results.glob("*/records/*.json"))[:1]:
        what = f"{path} is of an earlier version, which wrote a file for each record"
        damaged.append(BenchError(f"{what}: remove {path.parent}; the sweeps of its grids write it again"))
    return [replace(sheet, quoted=_quoted(sheet, found)) for sheet in found], damaged


def _quoted(sheet: Sheet, found: Sequence[Sheet]) -> dict[str, Record]:
    """The finished records of the experiment that a sheet's table quotes."""
    experiment = EXPERIMENTS.get(sheet.experiment)
    if experiment is None or experiment.quotes is None:
        return {}
    records = (
        item for other in found if other.experiment == experiment.quotes for item in other.records.items()
    )
    return {name: record for name, record in records if record["status"] == "done"}


def _read(path: Path) -> Sheet:
    remedy = "remove it: the sweep of its grid writes it again"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} cannot be read ({error}); {remedy}") from None
    values: list[Any] = []
    for number, line in enumerate(lines, 1):
        try:
            values.append(json.loads(line))
        except ValueError as error:
            raise BenchError(f"{path}, line {number}, is damaged ({error}); {remedy}") from None
    try:
        sheet, count = values[0], values[0]["cells"]
        cells, records = values[1 : 1 + count], values[1 + count :]
        named = {f"{record['kind']}-{record['key']}": record for record in records}
        if (len(cells), len(records), len(named)) != (count, sheet["records"], sheet["records"]):
            raise ValueError(f"{len(values)} lines for {count} cells and {sheet['records']} records")
        if any(cell.keys() != {"cell", "tasks"} for cell in cells):
            raise ValueError("what is no cell stands among the cells")
        return Sheet(**{**sheet, "cells": cells, "records": named})
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise BenchError(
            f"{path} is damaged: it lacks lines, or has some twice ({error}); {remedy}"
        ) from None


def _table_of(path: Path) -> str | None:
    """The table that a file is of; None for a damaged one, which its own grid mends."""
    try:
        with path.open(encoding="utf-8") as file:
            return json.loads(file.readline())["table"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _columns(tasks: Mapping[str, Task]) -> dict[str, str]:
    """Record names by column, those of inputs under the inputs' names."""
    names: dict[str, str] = {}
    for column, task in tasks.items():
        names[column] = task.name
        for inner, name in _columns(task.inputs).items():
            names.setdefault(inner, name)
    return names


def _public(record: Record) -> Record:
    kept = {key: value for key, value in record.items() if key not in PRIVATE}
    if kept.get("error"):
        kept["error"] = {key: kept["error"].get(key) for key in ("cause", "message")}
    return kept

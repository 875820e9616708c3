"""What stands under results/<scale>/records/: the small records behind the tables, and one sheet per grid.

A sheet (`<grid>.json`) says which cells the grid had and which records fill them. Sheets and records are all that
tables are made from. Nothing here is ever read by a sweep: a fresh clone computes everything itself.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
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

INTENT = ".publishing"  # end of the name of a file that says which records a grid is about to publish
ABANDONED = 24 * 3600.0  # seconds after which such a file was left by a killed process
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
    """Write the sheet and the records of a grid; records that no sheet of the scale names any more are removed.

    BenchError, with nothing written, where another grid's table of this scale has the same name.
    """
    folder = results / scale / "records"
    folder.mkdir(parents=True, exist_ok=True)
    table = grid.table or grid.name
    for path in sorted(folder.glob("*.json")):
        if _is_sheet(path) and path.stem != grid.name and _table_of(path) == table:
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
    intent = folder / f".{grid.name}.{uuid.uuid4().hex}{INTENT}"  # before any of them is there
    atomic.write_json(intent, {"records": sorted(records)})
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
        "cells": [{"cell": dict(entry.cell), "tasks": _columns(entry.tasks)} for entry in cells],
        "records": sorted(records),
    }
    try:
        for name, record in records.items():
            # not flushed one by one: what a power cut takes, the next rendering writes again from the store
            atomic.write_bytes(folder / f"{name}.json", atomic.json_bytes(record), lasting=False)
        atomic.write_json(folder / f"{grid.name}.json", sheet)
    finally:
        intent.unlink(missing_ok=True)
    _remove_unnamed(folder)


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
    for path in sorted(results.glob("*/records/*.json")):
        if _is_sheet(path):
            try:
                found.append(_read(path))
            except BenchError as error:
                damaged.append(error)
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
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        records = {
            name: json.loads((path.parent / f"{name}.json").read_text(encoding="utf-8"))
            for name in values["records"]
        }
        return Sheet(**{**values, "records": records})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(
            f"{path} or a record that it names is damaged ({error}); remove it: the sweep of its grid writes it again"
        ) from None


def _table_of(path: Path) -> str | None:
    """The table that a sheet's file names; None for a damaged one, which its own grid mends."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["table"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_sheet(path: Path) -> bool:
    return "-" not in path.stem  # records are <kind>-<key>.json; grids' names have no dash


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


def _remove_unnamed(folder: Path) -> None:
    """Remove records that no sheet names any more; none at all where a sheet cannot be read.

    Other grids may be publishing here now. Each says so (INTENT) before it writes a record, and records are moved aside
    and looked for once more before they go: whoever came to name one meanwhile has written it again or gets it back.
    """
    named = _named(folder)
    if named is None:
        return
    moved = {}
    for path in folder.glob("*.json"):
        if path.stem not in named and not _is_sheet(path):
            aside = folder / f".{path.name}.{uuid.uuid4().hex}.tmp"
            with contextlib.suppress(FileNotFoundError):  # another grid removes it
                path.rename(aside)
                moved[path] = aside
    named = _named(folder) if moved else named
    for path, aside in moved.items():
        if (named is None or path.stem in named) and not path.exists():
            aside.rename(path)
        else:
            aside.unlink()


def _named(folder: Path) -> set[str] | None:
    """The records named by sheets or by grids that are publishing; None where a sheet cannot be read."""
    named: set[str] = set()
    # Intents before sheets: one that is gone when it is to be read has become a sheet.
    for pattern in (f".*{INTENT}", "*.json"):
        for path in folder.glob(pattern):
            is_intent = path.name.endswith(INTENT)
            try:
                if is_intent and time.time() - path.stat().st_mtime > ABANDONED:
                    continue
                if is_intent or _is_sheet(path):
                    named.update(json.loads(path.read_text(encoding="utf-8"))["records"])
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError):
                return None
    return named

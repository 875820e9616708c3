"""Parts that tables are put together from: holes, means with their spread, differences, footers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from bench.engine.store import Record
from bench.publish.manifest import Sheet
from bench.publish.words import cell, code, plain

Entry = Mapping[str, Any]  # of Sheet.cells: a cell and the names of its tasks
NOT_RUN = "not run"
NOTHING = "-"  # there is no such figure
MODEL_TITLES = {  # as the paper calls them; others go by their own names
    "deit_tiny_patch16_224": "DeiT/16-Tiny",
    "deit_small_patch16_224": "DeiT/16-Small",
    "deit_base_patch16_224": "DeiT/16-Base",
    "resnet18": "ResNet18",
}


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows (column -> cell, all with the same columns) as a GitHub table. Cells are plain text, or Markup."""
    lines = [[cell(value) for value in row.values()] for row in rows]
    return tabulate(lines, [cell(name) for name in rows[0]], "github", disable_numparse=True)


def heading(title: str) -> str:
    """A grid's title within a heading, in small letters at first."""
    return plain(title[0].lower() + title[1:])


def method_title(sheet: Sheet, method: str) -> str:
    """How the grid calls a method, with the method's own name where another has the same title."""
    titles = {name: " ".join(str(m.get("title", name)).split()) for name, m in sheet.methods.items()}
    title = titles.get(method, method)
    return title if list(titles.values()).count(title) < 2 else f"{title} [{method}]"


def telling(cells: Iterable[Mapping[str, Any]], *shown: str) -> list[str]:
    """Axes, none of `shown`, in which cells differ that are alike in all of `shown`: rows need their values too."""
    alike: dict[tuple, Mapping[str, Any]] = {}
    differ: dict[str, None] = {}
    for one in cells:
        first = alike.setdefault(tuple(one.get(axis) for axis in shown), one)
        axes = [axis for axis in {**first, **one} if first.get(axis) != one.get(axis)]
        differ.update(dict.fromkeys(axis for axis in axes if axis not in shown))
    return list(differ)


def grouped(entries: Iterable[Entry], *axes: str) -> dict[tuple[Any, ...], list[Entry]]:
    """A sheet's cells by their values on some axes, in the grid's order."""
    found: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        found.setdefault(tuple(entry["cell"][axis] for axis in axes), []).append(entry)
    return found


def model_title(model: str) -> str:
    return MODEL_TITLES.get(model, model)


def mean_std(values: Sequence[float], digits: int = 2) -> str:
    """`97.22 ± 0.31 (3)`: mean, sample standard deviation, n; a single value has no spread: `97.22 (1)`."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.{digits}f} (1)"
    return f"{mean:.{digits}f} ± {statistics.stdev(values):.{digits}f} ({len(values)})"


def figure(value: float | None, digits: int = 2) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def difference(ours: float | None, theirs: float | None) -> str:
    """Ours less theirs, signed, 0 without a sign; nothing where either is missing."""
    if ours is None or theirs is None:
        return NOTHING
    text = f"{ours - theirs:+.2f}"
    return text[1:] if float(text) == 0 else text


def percent(share: float | None, digits: int = 1) -> str:
    return NOTHING if share is None else f"{100 * share:.{digits}f}%"


def status(tasks: Mapping[str, str], column: str, records: Mapping[str, Record]) -> str:
    """ "done", "failed: cause" of the column's task or of what it needs, or "not run"."""
    if column not in tasks:
        return NOT_RUN
    if (record := records.get(tasks[column])) is not None:
        return "done" if record["status"] == "done" else f"failed: {record['error']['cause']}"
    for name, task in tasks.items():
        record = records.get(task)
        if record is not None and record["status"] == "failed":
            return f"failed: {record['error']['cause']} ({name})"
    return NOT_RUN


def holes(states: Iterable[str]) -> str:
    """What is missing: `not run`, or `2 not run, 1 failed: out of memory`."""
    count: dict[str, int] = {}
    for state in states:
        if state != "done":
            count[state] = count.get(state, 0) + 1
    if sum(count.values()) == 1:
        return next(iter(count))
    return ", ".join(f"{number} {state}" for state, number in count.items())


def provenance(sheet: Sheet) -> dict[str, str]:
    """Hardware, commit, versions, date, seeds, seconds and command behind a sheet, from its records."""
    records = [record for record in sheet.records.values() if record["status"] == "done"]
    seeds = sorted({entry["cell"]["seed"] for entry in sheet.cells if "seed" in entry["cell"]})
    return {
        **origin(records),
        "date": max((record["finished"][:10] for record in records), default=NOT_RUN),
        "seeds": ", ".join(map(str, seeds)) or NOTHING,
        "seconds": f"{math.fsum(map(spent, records)):.0f} in {len(records)} tasks",
        "command": sheet.command,
    }


def origin(records: Sequence[Record]) -> dict[str, str]:
    """Hardware, commit and versions of finished records."""
    return {
        "hardware": _every(f"{record['device']} ({record['device_type']})" for record in records),
        "commit": _every(_commit(record) for record in records),
        "versions": _every(
            ", ".join(f"{k} {v}" for k, v in sorted(record["versions"].items())) for record in records
        ),
    }


def footer(sheet: Sheet) -> str:
    """The provenance as a list."""
    shown = {name: plain(value) for name, value in provenance(sheet).items()}
    shown["command"] = code(sheet.command)
    return "\n".join(f"- {name}: {value}" for name, value in shown.items())


def spent(record: Record) -> float:
    """Seconds of all attempts at a task: the last, and those before it that were stopped, where they are known."""
    earlier = record.get("earlier_attempts") or ()
    return math.fsum([record["seconds"], *(attempt["seconds"] for attempt in earlier)])


def _commit(record: Record) -> str:
    commit = (record.get("commit") or "no git")[:12]
    return f"{commit} with changes ({record['dirty']})" if record.get("dirty") else commit


def _every(values: Iterable[str]) -> str:
    """All distinct values, most frequent first."""
    count: dict[str, int] = {}
    for value in values:
        count[value] = count.get(value, 0) + 1
    return "; ".join(sorted(count, key=lambda value: (-count[value], value))) or NOT_RUN

"""Parts that tables are put together from: holes, means with their spread, differences, footers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from bench.engine.store import Record
from bench.publish.manifest import Sheet

NOT_RUN = "not run"
NOTHING = "-"  # there is no such figure
MODEL_TITLES = {  # as the paper calls them; others go by their own names
    "deit_tiny_patch16_224": "DeiT/16-Tiny",
    "deit_small_patch16_224": "DeiT/16-Small",
    "deit_base_patch16_224": "DeiT/16-Base",
    "resnet18": "ResNet18",
}


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows (column -> cell text, all with the same columns) as a GitHub table."""
    return tabulate([list(row.values()) for row in rows], list(rows[0]), "github", disable_numparse=True)


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
        "hardware": _every(f"{record['device']} ({record['device_type']})" for record in records),
        "commit": _every(_commit(record) for record in records),
        "versions": _every(
            ", ".join(f"{k} {v}" for k, v in sorted(record["versions"].items())) for record in records
        ),
        "date": max((record["finished"][:10] for record in records), default=NOT_RUN),
        "seeds": ", ".join(map(str, seeds)) or NOTHING,
        "seconds": f"{math.fsum(record['seconds'] for record in records):.0f} in {len(records)} tasks",
        "command": f"`{sheet.command}`",
    }


def footer(sheet: Sheet) -> str:
    """The provenance as a list."""
    return "\n".join(f"- {name}: {value}" for name, value in provenance(sheet).items())


def _commit(record: Record) -> str:
    commit = (record.get("commit") or "no git")[:12]
    return f"{commit} with changes ({record['dirty']})" if record.get("dirty") else commit


def _every(values: Iterable[str]) -> str:
    """All distinct values, most frequent first."""
    count: dict[str, int] = {}
    for value in values:
        count[value] = count.get(value, 0) + 1
    return "; ".join(sorted(count, key=lambda value: (-count[value], value))) or NOT_RUN

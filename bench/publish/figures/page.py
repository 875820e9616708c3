"""What says which figures there are: figures/README.md for people, figures/figures.json for the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.engine import atomic
from bench.errors import BenchError
from bench.publish.figures import Outcome, all_figures
from bench.publish.parts import provenance
from bench.publish.words import code, plain
from bench.text import plural

INDEX = "figures.json"
FORMAT = 1  # of figures.json
HEAD = """# Figures, {scale} scale

Made by {command} from the records in [records](../records/) and the images in the store; do not edit.
{scale_line}.
"""


def write(outcomes: Sequence[Outcome], folder: Path, scale_line: str, command: str) -> Path:
    """Write both; figures that were not asked for keep their entry. Returns the path of the page."""
    scale = folder.parent.name
    known = {entry["name"]: entry for entry in read(folder)["figures"]}
    known |= {outcome.figure.name: describe(outcome) for outcome in outcomes}
    entries = [known[figure.name] for figure in all_figures() if figure.name in known]
    atomic.write_json(
        folder / INDEX, {"format": FORMAT, "scale": scale, "command": command, "figures": entries}
    )
    parts = [HEAD.format(scale=scale, command=code(command), scale_line=plain(scale_line))]
    parts += [_section(entry) for entry in entries if entry["files"]]
    missing = [f"- {entry['title']}: {plain(entry['missing'])}" for entry in entries if not entry["files"]]
    if missing:
        parts.append("## Not made\n\n" + "\n".join(missing) + "\n")
    path = folder / "README.md"
    atomic.write_text(path, "\n".join(parts))
    return path


def read(folder: Path) -> dict[str, Any]:
    """What figures.json of a folder says; no figures where there is none. Raises BenchError for a damaged one."""
    path = folder / INDEX
    if not path.is_file():
        return {"format": FORMAT, "figures": []}
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        entries = index["figures"]
        whole = all(
            {"name", "title", "files", "caption", "missing", "sources"} <= set(entry) for entry in entries
        )
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise BenchError(f"{path} is damaged; remove it and draw the figures again: python -m bench figures")
    return index


def describe(outcome: Outcome) -> dict[str, Any]:
    """A figure's entry in figures.json: files, caption, records it was drawn from and where they were made."""
    sources = []
    for grid, rows in outcome.material.used.items():
        sheet = outcome.material.sheet(grid)
        records = {f"{r['kind']}-{r['key']}": r for row in rows for r in row.records.values()}
        origin = provenance(replace(sheet, cells=[{"cell": row.cell} for row in rows], records=records))
        sources.append({"grid": grid, "records": sorted(records), **origin})
    return {
        "name": outcome.figure.name,
        "title": outcome.figure.title,
        "files": list(outcome.files),
        **({"data": outcome.data} if outcome.data else {}),
        "caption": outcome.caption,
        "missing": outcome.missing,
        "sources": [] if outcome.missing else sources,
    }


def _section(entry: dict[str, Any]) -> str:
    drawn_from = "; ".join(
        f"{source['grid']} ({plural(len(source['records']), 'record')}, {plain(source['hardware'])}, {source['date']})"
        for source in entry["sources"]
    )
    table = f" Its data: [CSV]({entry['data']})." if entry.get("data") else ""
    return (
        f"## {entry['title']}\n\n![{entry['title']}]({entry['files'][0]})\n\n{entry['caption'].strip()}\n\n"
        f"Drawn from {drawn_from}.{table}\n"
    )

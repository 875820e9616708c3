"""The report as HTML, by the templates beside this file: they escape all that the folder says.

Markdown may hold no HTML of its own, so what markdown-it makes of it is safe as it is.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from bench.publish import scale_notes
from bench.publish.manifest import Sheet
from bench.publish.report import templates
from bench.publish.report.contents import TYPES, Contents, Picture, Table
from bench.publish.report.verdict import verdicts
from bench.text import plural

LARGE = 600  # records listed for one grid
SECTIONS = {
    "verdict": "What holds",
    "tables": "The main table",
    "figures": "Pictures",
    "rest": "Everything else",
}
UNTOLD = "Differences seen, not judged"  # the first heading of a scale whose figures cannot tell
GENERAL = (
    "Accuracies are mean ± sample standard deviation over seeds (n). A cell that was not run says so; nothing is "
    "filled in. What the paper reports stands in columns of its own and is never mixed with what was measured here."
)


def render(contents: Contents) -> str:
    """The whole page."""
    sheets = contents.sheets.values()
    found = verdicts(contents.sheets)
    return templates.whole(
        "page.html.j2",
        title=f"Sparse Model Inversion: results, {contents.scale} scale",
        line=scale_notes.line(contents.scale, *sheets),
        sections=SECTIONS if found["told"] else {**SECTIONS, "verdict": UNTOLD},
        found=found,
        summaries=contents.summaries(),
        shows=scale_notes.shows(*sheets),
        general=GENERAL,
        holes=[_hole(hole) for hole in contents.holes()],
        missing=[picture.entry for picture in contents.pictures if not picture.content],
        tables=[
            {"name": table.name, "heading": table.heading(contents.scale), "html": _table(table)}
            for table in contents.tables
        ],
        figures=[_figure(picture) for picture in contents.pictures if picture.content],
        settings=[(sheet, _settings(sheet)) for sheet in sheets],
        origins=contents.origins(),
        records=[_records(name, sheet) for name, sheet in contents.sheets.items()],
    )


def _hole(hole: Mapping[str, Any]) -> dict[str, str]:
    failed = ", ".join(f"{number} {cause}" for cause, number in hole["failed"].items())
    return {
        "grid": hole["grid"],
        "cells": str(hole["cells"]),
        "complete": str(hole["complete"]),
        "failed tasks": failed or "none",
    }


def _table(table: Table) -> Markup:
    """A table's page, its headings two levels down, its tables in boxes that scroll."""
    box = templates.macros("parts.html.j2").box(f"table of {table.name}")
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.add_render_rule("table_open", lambda *_: f"{box}<table>")
    markdown.add_render_rule("table_close", lambda *_: "</table></div>")
    markdown.add_render_rule("image", lambda _, tokens, place, *__: _within(tokens[place], table))
    tokens = markdown.parse(table.markdown)
    for token in tokens:
        _demote(token)
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))  # escaped by markdown-it


def _within(token: Token, table: Table) -> str:
    """A picture of a table's page as part of this one; what does not lie beside the page is only named."""
    name = str(token.attrs.get("src", ""))
    if name not in table.pictures:
        return escape(token.content)
    data = base64.b64encode(table.pictures[name]).decode()
    shown = f'<img src="data:{TYPES[Path(name).suffix]};base64,{data}" alt="{escape(token.content)}">'
    return (
        f'<span class="scroll" tabindex="0" role="region" aria-label="{escape(token.content)}">{shown}</span>'
    )


def _demote(token: Token) -> None:
    if token.type in ("heading_open", "heading_close"):
        token.tag = f"h{min(6, int(token.tag[1]) + 2)}"


def _figure(picture: Picture) -> dict[str, Any]:
    """Its entry, its contents as a data URI, and what it was drawn from."""
    entry = picture.entry
    origin = "; ".join(
        f"{s['grid']}, {plural(len(s['records']), 'record')}, {s['hardware']}, {s['date']}"
        for s in entry["sources"]
    )
    source = f"data:{picture.type};base64,{base64.b64encode(picture.content).decode()}"
    return {"data": "", **entry, "source": source, "origin": origin}


def _settings(sheet: Sheet) -> str:
    return json.dumps({"settings": sheet.settings, "methods": sheet.methods}, indent=1, ensure_ascii=False)


def _records(grid: str, sheet: Sheet) -> dict[str, Any]:
    """A grid's records, by kind and label, the first LARGE of them."""
    records = sorted(sheet.records.items(), key=lambda item: (item[1]["kind"], item[1]["label"]))
    return {
        "grid": grid,
        "number": plural(len(records), "record"),
        "rows": [_record(name, record) for name, record in records[:LARGE]],
        "more": max(0, len(records) - LARGE),
    }


def _record(name: str, record: Mapping[str, Any]) -> dict[str, str]:
    error = record.get("error") or {}
    return {
        "name": name,
        "label": record["label"] or name,
        "state": record["status"],
        "seconds": f"{record['seconds']:.1f}",
        "result": error.get("cause") or ", ".join(_plain(record.get("metrics") or {})),
    }


def _plain(metrics: Mapping[str, Any]) -> Iterator[str]:
    """The plain numbers among the metrics, shortly."""
    for name, value in metrics.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{name} {value:.6g}"

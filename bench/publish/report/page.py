"""The report as HTML. Everything from the folder is escaped; markdown may hold no HTML of its own."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from bench.publish import scale_notes
from bench.publish.manifest import Sheet
from bench.publish.report.contents import Contents, Picture, Table
from bench.text import plural

# What the page may do: show its own pictures and styles. No scripts, no network.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
LARGE = 600  # records listed for one grid

GENERAL = (
    "Accuracies are mean ± sample standard deviation over seeds (n). A cell that was not run says so; nothing is "
    "filled in. What the paper reports stands in columns of its own and is never mixed with what was measured here."
)


def render(contents: Contents) -> str:
    """The whole page."""
    sections = [
        ("read-first", "What is and is not shown", _read_first(contents)),
        ("tables", "Tables", "".join(map(_table, contents.tables))),
        ("figures", "Figures", "".join(map(_picture, contents.pictures)) or "<p>None were drawn.</p>"),
        ("settings", "Settings", "".join(_settings(sheet) for sheet in contents.sheets.values())),
        ("provenance", "Where this was made", _rows(contents.origins())),
        ("records", "Records", _records(contents)),
    ]
    links = {
        "tables": [(f"table-{table.name}", table.heading(contents.scale)) for table in contents.tables],
        "figures": [(f"figure-{p.entry['name']}", p.entry["title"]) for p in contents.pictures if p.content],
    }
    title = f"Sparse Model Inversion: results, {contents.scale} scale"
    css = resources.files("bench.publish.report").joinpath("page.css").read_text(encoding="utf-8")
    body = "".join(
        f'<section id="{key}"><h2>{escape(name)}</h2>{text}</section>' for key, name, text in sections
    )
    line = scale_notes.line(contents.scale, *contents.sheets.values())
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>\n{css}</style>\n</head>\n<body>\n'
        f"<header><h1>{escape(title)}</h1><p>{escape(line)}.</p></header>\n"
        f"{_navigation(sections, links)}\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _navigation(
    sections: Sequence[tuple[str, str, str]], links: Mapping[str, Sequence[tuple[str, str]]]
) -> str:
    items = []
    for key, name, _ in sections:
        inner = "".join(f'<li><a href="#{at}">{escape(text)}</a></li>' for at, text in links.get(key, []))
        items.append(f'<li><a href="#{key}">{escape(name)}</a>{f"<ul>{inner}</ul>" if inner else ""}</li>')
    return f'<nav aria-label="Contents"><ul>{"".join(items)}</ul></nav>'


def _read_first(contents: Contents) -> str:
    parts = [f"<p>{escape(scale_notes.shows(*contents.sheets.values()))}</p><p>{escape(GENERAL)}</p>"]
    rows = [
        {
            "grid": hole["grid"],
            "cells": str(hole["cells"]),
            "complete": str(hole["complete"]),
            "failed tasks": ", ".join(f"{number} {cause}" for cause, number in hole["failed"].items())
            or "none",
        }
        for hole in contents.holes()
    ]
    parts.append(_rows(rows))
    missing = [picture.entry for picture in contents.pictures if not picture.content]
    if missing:
        items = "".join(
            f"<li>{escape(entry['title'])}: {_with_command(entry['missing'])}</li>" for entry in missing
        )
        parts.append(f"<p>Figures that were not made:</p><ul>{items}</ul>")
    return "".join(parts)


def _with_command(message: str) -> str:
    """A message whose end is a command: the command set as one."""
    text, python, command = message.partition("python -m")
    return escape(text) + (f"<code>{escape(python + command)}</code>" if command else "")


# ---- tables


def _table(table: Table) -> str:
    """A table's page, its headings two levels down, its tables in boxes that scroll."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.add_render_rule("table_open", lambda *_: f"{_box(f'table of {table.name}')}<table>")
    markdown.add_render_rule("table_close", lambda *_: "</table></div>")
    tokens = markdown.parse(table.markdown)
    for token in tokens:
        _demote(token)
    text = markdown.renderer.render(tokens, markdown.options, {})
    return f'<article id="table-{escape(table.name)}">{text}</article>'


def _demote(token: Token) -> None:
    if token.type in ("heading_open", "heading_close"):
        token.tag = f"h{min(6, int(token.tag[1]) + 2)}"


def _rows(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows (column -> text) as a table in a box that scrolls."""
    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row.values())}</tr>" for row in rows)
    return f"{_box('table')}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _box(name: str) -> str:
    """A box that scrolls sideways, by keyboard too."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">'


# ---- figures


def _picture(picture: Picture) -> str:
    entry = picture.entry
    if not picture.content:
        return ""
    source = f"data:{picture.type};base64,{base64.b64encode(picture.content).decode()}"
    origin = "; ".join(
        f"{s['grid']}, {plural(len(s['records']), 'record')}, {s['hardware']}, {s['date']}"
        for s in entry["sources"]
    )
    files = " ".join(f'<a href="figures/{escape(file)}">{escape(file)}</a>' for file in entry["files"])
    return (
        f'<figure id="figure-{escape(entry["name"])}">{_box(entry["title"])}'
        f'<img src="{source}" alt="{escape(entry["title"])}"></div>'
        f"<figcaption><strong>{escape(entry['title'])}.</strong> {escape(entry['caption'])} "
        f"<small>Drawn from {escape(origin)}. {files}</small></figcaption></figure>"
    )


# ---- settings and records


def _settings(sheet: Sheet) -> str:
    text = json.dumps({"settings": sheet.settings, "methods": sheet.methods}, indent=1, ensure_ascii=False)
    return (
        f"<details><summary>{escape(sheet.grid)}: {escape(sheet.title)}</summary>"
        f"<p><code>{escape(sheet.command)}</code></p>{_box(sheet.grid)}<pre>{escape(text)}</pre></div></details>"
    )


def _records(contents: Contents) -> str:
    """Links to the records, by grid; they lie beside the page."""
    parts = ["<p>Each links to its JSON in the folder records, beside this page.</p>"]
    for name, sheet in contents.sheets.items():
        records = sorted(sheet.records.items(), key=lambda item: (item[1]["kind"], item[1]["label"]))
        rows = "".join(_record_row(record, text) for record, text in records[:LARGE])
        more = f"<p>and {len(records) - LARGE} more.</p>" if len(records) > LARGE else ""
        head = "".join(f"<th>{column}</th>" for column in ("task", "state", "seconds", "result"))
        parts.append(
            f"<details><summary>{escape(name)}: {plural(len(records), 'record')}</summary>{_box(f'records of {name}')}"
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{more}</details>"
        )
    return "".join(parts)


def _record_row(name: str, record: Mapping[str, Any]) -> str:
    error = record.get("error") or {}
    result = error.get("cause") or _metrics(record.get("metrics") or {})
    cells: Iterable[str] = (
        f'<a href="records/{escape(name)}.json">{escape(record["label"] or name)}</a>',
        escape(record["status"]),
        f"{record['seconds']:.1f}",
        escape(result),
    )
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _metrics(metrics: Mapping[str, Any]) -> str:
    """The plain numbers among the metrics, shortly."""
    plain = {k: v for k, v in metrics.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return ", ".join(f"{name} {value:.6g}" for name, value in plain.items())

"""What a report shows, read from a results folder: tables, figures, sheets and the records behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.experiments import EXPERIMENTS, part
from bench.publish import manifest
from bench.publish.figures import page as figures_page
from bench.publish.manifest import Sheet
from bench.publish.parts import provenance
from bench.publish.summary import Summary
from bench.publish.words import shown

TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".gif": "image/gif"}


@dataclass(frozen=True)
class Table:
    """A table's page: stem of its file, its markdown, and the pictures in it: file name -> contents."""

    name: str
    markdown: str
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    def heading(self, scale: str) -> str:
        """Its first heading as far as the colon, less the scale, which the report's own title says."""
        first = shown(self.markdown.partition("\n")[0].lstrip("# ").partition(":")[0])
        return first.replace(f", {scale} scale", "") or self.name


@dataclass(frozen=True)
class Picture:
    """A figure: its entry in figures.json and its contents; no contents if it could not be made."""

    entry: Mapping[str, Any]
    type: str = ""
    content: bytes = b""


@dataclass(frozen=True)
class Contents:
    """Everything that is in a results folder. sheets: the grids that were run, by name."""

    scale: str
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    sheets: Mapping[str, Sheet]

    def origins(self) -> list[dict[str, str]]:
        """Where each grid's records come from."""
        return [{"grid": name, **provenance(sheet)} for name, sheet in self.sheets.items()]

    def summaries(self) -> list[Summary]:
        """The tables to sort and filter, the paper's first."""
        ranked = sorted(
            self.sheets.values(), key=lambda sheet: (_rank(sheet.table, self.sheets), sheet.table)
        )
        found = []
        for sheet in ranked:
            experiment = EXPERIMENTS.get(sheet.experiment)
            if sheet.cells and experiment is not None and experiment.summaries is not None:
                found += [summary for summary in part(experiment.summaries)(sheet) if summary.rows]
        return found

    def holes(self) -> list[dict[str, Any]]:
        """For each grid: cells, those of which every task is done, and what failed."""
        return [_state(name, sheet) for name, sheet in self.sheets.items()]


def collect(folder: Path) -> Contents:
    """Read a results folder. Raises BenchError, one line, if it is none or holds nothing to show."""
    if not folder.is_dir():
        raise BenchError(f"{folder} is no folder; give that of a scale, e.g. results/digits")
    scale = folder.resolve().name
    sheets = {sheet.grid: sheet for sheet in manifest.sheets(folder.resolve().parent) if sheet.scale == scale}
    beside = {path.name: path.read_bytes() for path in sorted(folder.glob("*")) if path.suffix in TYPES}
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}
    tables = [Table(name, text, beside) for name, text in texts.items()]
    tables.sort(key=lambda table: (_rank(table.name, sheets), table.name))
    if not tables and not sheets:
        raise BenchError(
            f"{folder} holds no tables and no records; give the folder of a scale, e.g. results/digits, or make "
            "some: python -m bench.sweep --grid experiments/table3.yaml"
        )
    return Contents(scale, tables, _pictures(folder / "figures"), sheets)


def _pictures(folder: Path) -> list[Picture]:
    pictures = []
    for entry in figures_page.read(folder)["figures"]:
        if not entry["files"]:
            pictures.append(Picture(entry))
            continue
        paths = [folder / file for file in entry["files"]]
        for path in paths:
            if path.parent != folder or path.suffix not in TYPES or not path.is_file():
                raise BenchError(
                    f"{folder / figures_page.INDEX} names {path.name!r}, which is no figure there"
                )
        contents = {path.suffix: path.read_bytes() for path in paths}
        suffix = min(
            contents, key=lambda suffix: len(contents[suffix])
        )  # of a line plot, PNG has half of SVG's bytes
        pictures.append(Picture(entry, TYPES[suffix], contents[suffix]))
    return pictures


def _rank(name: str, sheets: Mapping[str, Sheet]) -> int:
    """Claims come first, then the paper's tables, other experiments, ablations, and the images behind the figures."""
    experiment = EXPERIMENTS.get(sheets[name].experiment) if name in sheets else None
    if name == "README":
        return -1
    if name.startswith("table"):
        return 0
    return 3 if experiment is not None and experiment.pictures else 2 if name.startswith("ablation") else 1


def _state(name: str, sheet: Sheet) -> dict[str, Any]:
    """Cells in all, cells that are complete, and causes of failed tasks with their number."""
    complete, causes = 0, {}
    for entry in sheet.cells:
        records = [sheet.records.get(task) for task in entry["tasks"].values()]
        complete += bool(records) and all(record and record["status"] == "done" for record in records)
    for record in sheet.records.values():
        if record["status"] == "failed":
            cause = record["error"]["cause"]
            causes[cause] = causes.get(cause, 0) + 1
    return {"grid": name, "cells": len(sheet.cells), "complete": complete, "failed": causes}

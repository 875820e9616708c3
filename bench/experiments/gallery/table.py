"""The images behind the figures: what was inverted, how far it got, and how long it took."""

from __future__ import annotations

from bench.publish import scale_notes
from bench.publish.manifest import Sheet
from bench.publish.parts import (
    NOTHING,
    figure,
    footer,
    heading,
    markdown,
    method_title,
    percent,
    status,
    telling,
)
from bench.publish.words import plain

NOTE = """\
The pictures themselves are drawn by `python -m bench figures --scale {scale}` into [figures](figures/README.md).
Seconds are of the optimisation alone; loss is that of the last iteration, over all images together."""


def text(sheet: Sheet) -> str:
    """The whole page, markdown."""
    rows = []
    more = telling((entry["cell"] for entry in sheet.cells), "model", "method", "seed")
    for entry in sheet.cells:
        cell, tasks = entry["cell"], entry["tasks"]
        record = sheet.records.get(tasks.get("images", ""), {})
        metrics, settings = record.get("metrics") or {}, record.get("settings", {})
        patches = f"{metrics['kept']} of {metrics['patches']}" if "kept" in metrics else NOTHING
        rows.append(
            {
                "model": cell["model"],
                "images": method_title(sheet, cell["method"]),
                **{axis: str(cell.get(axis)) for axis in more},
                "seed": str(cell["seed"]),
                "state": status(tasks, "images", sheet.records),
                "count": str(settings.get("count", NOTHING)),
                "patches": patches,
                "sparsity": percent(metrics.get("sparsity")),
                "iterations": str(metrics.get("iterations", NOTHING)),
                "seconds": figure(metrics.get("seconds"), 1),
                "loss": figure(metrics.get("loss"), 3),
            }
        )
    head = f"# Images for the figures, {scale_notes.named(sheet)}: {heading(sheet.title)}"
    note = NOTE.format(scale=sheet.scale)
    scale = f"**{plain(scale_notes.line(sheet.scale, sheet))}**."
    return "\n\n".join([head, scale, markdown(rows), note, "## How this was made", footer(sheet)]) + "\n"

"""One row for each choice of patches or of stops: what it costs, and what it does to quantization and to transfer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.grid import PAPER_SCALE
from bench.publish import scale_notes
from bench.publish.manifest import Sheet
from bench.publish.parts import (
    NOT_RUN,
    Entry,
    footer,
    grouped,
    markdown,
    mean_std,
    method_title,
    model_title,
    percent,
    status,
)
from bench.publish.words import code, plain

NOTES = """\
Mean ± sample standard deviation over seeds (n) of images, student and draws; the model that is inverted is the same for
all. Top-1 and agreement (the same answer as full precision) are in % of all test pictures, logit error is ‖quantized -
full precision‖ / ‖full precision‖. The student starts from fresh weights and sees each image through its kept patches.
Seconds are of one inversion of 32 images, optimisation alone, and include whatever else the machine did."""


def text(sheet: Sheet) -> str:
    """The whole page, markdown."""
    parts = [f"# {plain(sheet.title)}, {scale_notes.named(sheet)}"]
    if sheet.scale != PAPER_SCALE:
        parts.append(scale_notes.disclaimer(sheet))
    for (model, dataset, pool), entries in grouped(sheet.cells, "model", "dataset", "pool").items():
        parts.append(f"## {plain(model_title(model))} on {plain(dataset)}, pool {code(pool)}")
        parts.append(markdown(_rows(sheet, entries)))
    parts += [NOTES, *scale_notes.reading(sheet)]
    return "\n\n".join([*parts, "## How this was made", footer(sheet)]) + "\n"


def _rows(sheet: Sheet, entries: Sequence[Entry]) -> list[dict[str, str]]:
    rows = []
    for (method,), own in grouped(entries, "method").items():
        images = _done(sheet, own, "images")
        row = {"images": method_title(sheet, method), "sparsity": NOT_RUN, "s per inversion": NOT_RUN}
        if images:
            row["sparsity"] = percent(images[0]["sparsity"])
            row["s per inversion"] = mean_std([one["seconds"] for one in images], 1)
        for bits in dict.fromkeys(entry["cell"]["bits"] for entry in own):
            found = _done(sheet, [entry for entry in own if entry["cell"]["bits"] == bits], "quantize")
            row[f"{bits} top-1"] = _mean(found, "top1")
            row[f"{bits} agreement"] = _mean(found, "agreement")
            row[f"{bits} logit error"] = _mean(found, "logit_error", 100, " %")
        row["student's top-1"] = _mean(_done(sheet, own, "transfer"), "top1")
        rows.append(row)
    return rows


def _done(sheet: Sheet, entries: Sequence[Entry], column: str) -> list[Mapping[str, Any]]:
    """The metrics of a column's finished tasks, each task once."""
    names = dict.fromkeys(
        entry["tasks"][column] for entry in entries if status(entry["tasks"], column, sheet.records) == "done"
    )
    return [sheet.records[name]["metrics"] for name in names]


def _mean(found: Sequence[Mapping[str, Any]], metric: str, times: float = 1, unit: str = "") -> str:
    return mean_std([times * one[metric] for one in found]) + unit if found else NOT_RUN

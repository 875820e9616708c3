"""What the published code's deviations from the paper do: each alone, and all together, beside the paper's text."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.grid import PAPER_SCALE
from bench.publish import told_apart
from bench.publish.manifest import Sheet
from bench.publish.parts import (
    NOT_RUN,
    NOTHING,
    footer,
    holes,
    markdown,
    mean_std,
    method_title,
    status,
    telling,
)
from bench.publish.words import plain
from bench.tasks import answers
from smi.published import OF_CALIBRATION, OF_INVERSION

NOTES = """\
The first row follows the paper's text, as this project does everywhere else. Every other row switches on what its
name says, and nothing else; docs/reproducibility.md tells each at length. (The slides' quantizer cuts off where the
published one rounds, and has one asymmetric range for all channels of a weight.) Top-1 (%) and logit error
(‖quantized - full precision‖ / ‖full precision‖ over all test pictures, %) are mean ± sample standard deviation over
seeds (n). "change" is the mean, over seeds, of a row's figure less the first row's with the same seed, ± its sample
standard deviation: a change within its own spread is noise. Patches are those of a picture that are fed forward in
calibration."""

KEEP_ZERO_NOTE = """\
keep_zero touches test pictures too, as it does in the published code: a black pixel then looks grey. Where pictures
have much black, as digits have, no model sees what it was trained on, and the last column, the top-1 of the
full-precision model on the same pictures, falls alike: that loss is not one of quantization."""


def text(sheet: Sheet) -> str:
    """The whole page, markdown."""
    parts = [f"# {plain(sheet.title)}, {sheet.scale} scale"]
    if sheet.scale != PAPER_SCALE:
        models = plain(", ".join(dict.fromkeys(entry["cell"]["model"] for entry in sheet.cells)))
        parts.append(
            f"**Scale: {sheet.scale}** ({models}). Not the paper's models or data, and not its figures."
        )
    more = telling((entry["cell"] for entry in sheet.cells), "model", "bits", "method", "seed")
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for entry in sheet.cells:
        groups.setdefault(tuple(entry["cell"].get(axis) for axis in ("model", *more, "bits")), []).append(
            entry
        )
    for place, entries in groups.items():
        parts += [f"## {plain(', '.join(map(str, place)))}", markdown(_rows(sheet, entries))]
    if any(answers.FIELD in record["metrics"] for record in sheet.records.values()):
        parts.append(told_apart.NOTE)
    parts += [NOTES, KEEP_ZERO_NOTE, "## The switches", _switches(), "## How this was made", footer(sheet)]
    return "\n\n".join(parts) + "\n"


def _rows(sheet: Sheet, entries: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """One row per method, in the grid's order; the first is what the others are held against."""
    methods = list(dict.fromkeys(entry["cell"]["method"] for entry in entries))
    by_seed = {
        method: {e["cell"]["seed"]: e["tasks"] for e in entries if e["cell"]["method"] == method}
        for method in methods
    }
    return [_row(sheet, method, by_seed[method], by_seed[methods[0]]) for method in methods]


def _row(sheet: Sheet, method: str, ours: Mapping[int, Any], first: Mapping[int, Any]) -> dict[str, str]:
    missing = holes(status(tasks, "quantize", sheet.records) for tasks in ours.values())
    kept = {
        figure for tasks in ours.values() if (figure := _figure(sheet, tasks, "images", "kept")) is not None
    }
    row = {
        "method": method_title(sheet, method),
        "patches": ", ".join(f"{count:.0f}" for count in sorted(kept)) or NOTHING,
    }
    for metric, title, factor in (("top1", "top-1", 1), ("logit_error", "logit error", 100)):
        values = {
            seed: factor * value
            for seed, tasks in ours.items()
            if (value := _figure(sheet, tasks, "quantize", metric)) is not None
        }
        row[title] = mean_std(list(values.values())) if values else NOT_RUN
        row[title] += f", {missing}" if values and missing else ""
        row[f"change of {title}"] = (
            _change(sheet, metric, factor, values, first) if ours is not first else NOTHING
        )
        if metric == "top1" and ours is not first and (apart := _told_apart(sheet, ours, first)):
            row[f"change of {title}"] += f", {apart}"
    whole = [_figure(sheet, tasks, "quantize", "reference_top1") for tasks in ours.values()]
    known = sorted({top1 for top1 in whole if top1 is not None})
    row["full precision, same pictures"] = ", ".join(f"{top1:.2f}" for top1 in known) or NOTHING
    return row


def _change(
    sheet: Sheet, metric: str, factor: int, values: Mapping[int, float], first: Mapping[int, Any]
) -> str:
    changes = [
        value - factor * base
        for seed, value in values.items()
        if (base := _figure(sheet, first.get(seed, {}), "quantize", metric)) is not None
    ]
    if not changes:
        return NOTHING
    spread = f" ± {statistics.stdev(changes):.2f}" if len(changes) > 1 else ""
    return f"{statistics.fmean(changes):+.2f}{spread}"


def _told_apart(sheet: Sheet, ours: Mapping[int, Any], first: Mapping[int, Any]) -> str:
    both = [(ours[seed], first[seed]) for seed in ours if seed in first]
    return told_apart.said(
        tuple(sheet.records.get(tasks.get("quantize", "")) for tasks in pair) for pair in both
    )


def _figure(sheet: Sheet, tasks: Mapping[str, str], column: str, metric: str) -> float | None:
    record = sheet.records.get(tasks.get(column, ""))
    return record["metrics"].get(metric) if record is not None and record["status"] == "done" else None


def _switches() -> str:
    return "\n".join(f"- `{name}`: {what}." for name, what in {**OF_INVERSION, **OF_CALIBRATION}.items())

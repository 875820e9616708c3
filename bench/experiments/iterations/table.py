"""Quality of the quantized model against iterations and seconds of inversion, and seconds to a calibrated model."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.experiments.builders.quantization import QUANTIZER
from bench.grid import PAPER_SCALE
from bench.publish import scale_notes
from bench.publish.manifest import Sheet
from bench.publish.parts import (
    NOT_RUN,
    figure,
    footer,
    holes,
    markdown,
    mean_std,
    method_title,
    status,
    telling,
)
from bench.publish.words import plain

PANEL = ("model", "dataset", "bits")  # axes that part tables; others do where they tell cells apart

POINTS = ("calibrated", "least logit error", "longest run")
CALIBRATED = 1.1  # times the logit error at the end: from there on a model counts as calibrated

NOTES = f"""\
Seconds are of the inversion's optimisation alone, mean ± sample standard deviation over seeds (n); logit error is
‖quantized - full precision‖ / ‖full precision‖ over all test pictures. Calibrated: the fewest iterations from which on
the mean logit error of the method stays within {CALIBRATED:g} times that of its longest run. Where a short run beats
the longest, "least logit error" says what sufficed. A run is measured anew for each length, whatever other work the
machine had, so seconds are no benchmark (that is `nox -s benchmark`)."""


def text(sheet: Sheet) -> str:
    """The whole page, markdown."""
    frame = pd.DataFrame([_line(sheet, entry) for entry in sheet.cells])
    parts = [f"# {plain(sheet.title)}, {sheet.scale} scale"]
    if sheet.scale != PAPER_SCALE:
        said = f"**Scale: {sheet.scale}** ({plain(scale_notes.subject(sheet))})."
        parts.append("\n".join([said, *scale_notes.reading(sheet)]))
    if QUANTIZER in frame:
        parts += ["## Iterations that suffice, by quantizer", markdown(_suffice(sheet, frame))]
    more = telling((entry["cell"] for entry in sheet.cells), *PANEL, "method", "iterations", "seed")
    for key, group in frame.groupby([*PANEL, *more], sort=False, dropna=False):
        model, dataset, *values = map(str, key)
        parts += [f"## {plain(', '.join([f'{model} on {dataset}', *values]))}", markdown(_rows(sheet, group))]
        parts += ["### Seconds to a calibrated model", markdown(_calibrated(sheet, group))]
    return "\n\n".join([*parts, NOTES, "## How this was made", footer(sheet)]) + "\n"


def _line(sheet: Sheet, entry: dict[str, Any]) -> dict[str, Any]:
    tasks = entry["tasks"]
    line = {**entry["cell"], "status": status(tasks, "quantize", sheet.records)}
    line |= dict.fromkeys(("top1", "logit_error", "seconds", "kept", "patches"))
    if line["status"] == "done":
        images, quantized = (sheet.records[tasks[column]]["metrics"] for column in ("images", "quantize"))
        line |= {name: quantized[name] for name in ("top1", "logit_error")}
        line |= {name: images[name] for name in ("seconds", "kept", "patches")}
    return line


def _rows(sheet: Sheet, frame: pd.DataFrame) -> list[dict[str, str]]:
    rows = []
    for (method, iterations), group in frame.groupby(["method", "iterations"], sort=False):
        done, missing = group[group["status"] == "done"], holes(group["status"])
        row = {"method": method_title(sheet, method), "iterations": str(iterations)}
        row |= dict.fromkeys(("patches", "seconds", "top-1", "logit error"), missing or NOT_RUN)
        if len(done):
            row |= {
                "patches": f"{done['kept'].iloc[0]:.0f} of {done['patches'].iloc[0]:.0f}",
                "seconds": mean_std(list(done["seconds"])),
                "top-1": mean_std(list(done["top1"])) + (f", {missing}" if missing else ""),
                "logit error": mean_std(list(100 * done["logit_error"])) + " %",
            }
        rows.append(row)
    return rows


def _suffice(sheet: Sheet, frame: pd.DataFrame) -> list[dict[str, str]]:
    """For each quantizer, the iterations from which on a method's models count as calibrated, and the best number."""
    rows = []
    for (*values, method), group in frame.groupby([*PANEL, QUANTIZER, "method"], sort=False, dropna=False):
        done = group[group["status"] == "done"]
        row = dict(zip((*PANEL, QUANTIZER), map(str, values), strict=True))
        row["method"] = method_title(sheet, method)
        lengths = _points(_means(done)) if len(done) else {}
        rows.append(row | {what: str(lengths.get(what, NOT_RUN)) for what in POINTS})
    return rows


def _means(done: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, by iterations."""
    return done.groupby("iterations")[["seconds", "logit_error", "top1"]].mean()


def _points(means: pd.DataFrame) -> dict[str, int]:
    """POINTS -> iterations."""
    longest = means.index[-1]
    within = means["logit_error"] <= CALIBRATED * means.loc[longest, "logit_error"]
    first = means.index[len(within) - int(within[::-1].cummin().sum())]
    return dict(zip(POINTS, (first, means["logit_error"].idxmin(), longest), strict=True))


def _calibrated(sheet: Sheet, frame: pd.DataFrame) -> list[dict[str, str]]:
    rows = []
    for method, group in frame[frame["status"] == "done"].groupby("method", sort=False):
        means = _means(group)
        for what, length in _points(means).items():
            rows.append(
                {
                    "method": method_title(sheet, method),
                    "point": what,
                    "iterations": str(length),
                    "seconds": figure(means.loc[length, "seconds"]),
                    "logit error": f"{100 * means.loc[length, 'logit_error']:.2f} %",
                    "top-1": figure(means.loc[length, "top1"]),
                }
            )
    return rows or [{"method": NOT_RUN}]

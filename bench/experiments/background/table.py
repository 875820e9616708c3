"""What the background says of the class: one row an image source, one table a share of the patches."""

from __future__ import annotations

from collections.abc import Sequence

from bench.experiments.background.plan import SHARE
from bench.grid import PAPER_SCALE
from bench.publish import scale_notes
from bench.publish.manifest import Sheet
from bench.publish.parts import (
    NOT_RUN,
    Entry,
    footer,
    grouped,
    holes,
    markdown,
    mean_std,
    method_title,
    model_title,
    percent,
    status,
)
from bench.publish.words import plain

PARTS = {
    "background": "background",
    "chance": "as many at random",
    "rest": "the rest",
    "whole": "all patches",
}
NOTES = """\
The model is fed patches of finished images alone: the background, the patches to which CLS attends least (of sparse
images and of Rebirth's, those that were stopped come first); as many patches drawn at random; the rest; all of them.
Probability is the mean softmax (%) of the class that an image was inverted for, or of a real picture's label; top-1 the
share (%) of images with that class first. Mean ± sample standard deviation over seeds (n) of the images. A background
that says no more of the class than chance's patches do, holds nothing of it that other patches lack; one whose
probability is near that of all patches has been written over with the class."""


def text(sheet: Sheet) -> str:
    """The whole page, markdown."""
    parts = [f"# {plain(sheet.title)}, {scale_notes.named(sheet)}"]
    if sheet.scale != PAPER_SCALE:
        parts.append(scale_notes.disclaimer(sheet))
    for (model, dataset, share), entries in grouped(sheet.cells, "model", "dataset", SHARE).items():
        parts.append(f"## {plain(model_title(model))} on {plain(dataset)}, background {percent(share, 0)}")
        parts.append(markdown(_rows(sheet, entries)))
    parts += [NOTES, *scale_notes.reading(sheet)]
    return "\n\n".join([*parts, "## How this was made", footer(sheet)]) + "\n"


def _rows(sheet: Sheet, entries: Sequence[Entry]) -> list[dict[str, str]]:
    return [_row(sheet, method, own) for (method,), own in grouped(entries, "method").items()]


def _row(sheet: Sheet, method: str, entries: Sequence[Entry]) -> dict[str, str]:
    states = [status(entry["tasks"], "background", sheet.records) for entry in entries]
    done = [
        sheet.records[entry["tasks"]["background"]]["metrics"]
        for entry, state in zip(entries, states, strict=True)
        if state == "done"
    ]
    missing = holes(states)
    row = {"images": method_title(sheet, method), "patches": str(done[0]["patches"]) if done else NOT_RUN}
    for measure, unit in (("probability", "probability"), ("top1", "top-1")):
        for part, title in PARTS.items():
            row[f"{title}: {unit}"] = (
                mean_std([one[f"{part}_{measure}"] for one in done]) if done else missing or NOT_RUN
            )
    more = f", {missing}" if done and missing else ""
    row["background over chance"] = (
        mean_std([one["background_over_chance"] for one in done]) + more if done else missing or NOT_RUN
    )
    return row

"""The second block of Table 4: as many images of each method beside as many as equal seconds of inversion allow."""

from __future__ import annotations

from collections.abc import Sequence

from bench.experiments.equal_seconds.rows import taught
from bench.grid import PAPER_SCALE
from bench.publish import scale_notes
from bench.publish.manifest import Sheet
from bench.publish.parts import (
    NOT_RUN,
    Entry,
    footer,
    grouped,
    heading,
    holes,
    markdown,
    mean_std,
    method_title,
    model_title,
    status,
)
from bench.publish.words import code, plain

NOTES = """\
Top-1 (%) is that of the student on whole test pictures after the last step: mean ± sample standard deviation over seeds
(n) of images, student and draws. Seconds are of the inversions behind one pool, optimisation alone, by the clock, and
include whatever else the machine did; sizes of pools were chosen beforehand from seconds measured on the device that
the scale is for. Noise costs no inversion: its pool is as large as the largest."""


def text(sheet: Sheet) -> str:
    """The whole page, markdown."""
    parts = [f"# Table 4 at equal seconds, {scale_notes.named(sheet)}: {heading(sheet.title)}"]
    if sheet.scale != PAPER_SCALE:
        parts.append(scale_notes.disclaimer(sheet))
    for (model, dataset), entries in grouped(sheet.cells, "model", "dataset").items():
        parts.append(f"## {plain(model_title(model))} on {plain(dataset)}")
        parts.append(markdown(_rows(sheet, entries)))
    pools = ", ".join(
        f"{code(name)}: {pool['steps']} steps" for name, pool in sheet.settings["pools"].items()
    )
    parts += [f"{NOTES} Pools: {pools}.", *scale_notes.reading(sheet)]
    parts.append(
        "Top-1 against seconds: `figures/equal_seconds.png`, made from the same records by `python -m bench figures`."
    )
    return "\n\n".join([*parts, "## How this was made", footer(sheet)]) + "\n"


def _rows(sheet: Sheet, entries: Sequence[Entry]) -> list[dict[str, str]]:
    found = grouped(entries, "method", "pool")
    pools = list(dict.fromkeys(pool for _, pool in found))
    rows = []
    for method in dict.fromkeys(method for method, _ in found):
        row = {"method": method_title(sheet, method)}
        for pool in pools:
            own = found.get((method, pool), [])
            done = list(taught(sheet, own))
            missing = holes(status(entry["tasks"], "transfer", sheet.records) for entry in own)
            row |= dict.fromkeys(
                (f"{pool}: images", f"{pool}: s of images", f"{pool}: top-1"), missing or NOT_RUN
            )
            if done:
                row[f"{pool}: images"] = str(done[0].images)
                row[f"{pool}: s of images"] = mean_std([one.seconds for one in done], 1)
                shown = mean_std([one.top1 for one in done])
                row[f"{pool}: top-1"] = f"{shown}, {missing}" if missing else shown
        rows.append(row)
    return rows

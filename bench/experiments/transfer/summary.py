"""Table 4 for the report: how well a student learns from each kind of images, ours beside the paper's."""

from __future__ import annotations

from bench.experiments import paper
from bench.experiments.transfer.table import PANEL, PAPER_TABLE, aggregate, cells_frame, patches
from bench.publish.manifest import Sheet
from bench.publish.parts import NOTHING, mean_std, method_title, model_title, telling
from bench.publish.summary import Column, Summary, Value

NOTE = (
    "Top-1 in % of a student that learns from these images alone: mean ± sample standard deviation over seeds (number "
    "of seeds). Read sparse inversion against its controls: random patches, random selection, noise. Seconds are of "
    "the inversions behind one pool of images. Bars: share of the largest figure of the same model."
)


def summaries(sheet: Sheet) -> list[Summary]:
    """One table of all models, pools and students."""
    frame = cells_frame(sheet)
    more = telling((entry["cell"] for entry in sheet.cells), *PANEL, "dataset", "method", "seed")
    axes = [*PANEL, "dataset", *more]
    rows = []
    for key, group in frame.groupby(["method", *axes], sort=False, dropna=False):
        place = dict(zip(["method", *axes], key, strict=True))
        mean, shown = aggregate(group)
        theirs = paper.figure(PAPER_TABLE, place["dataset"], model=place["model"], method=place["method"])
        seconds = [float(value) for value in group["inverting"].dropna()]
        rows.append(
            {
                "method": Value(method_title(sheet, place["method"])),
                "model": Value(model_title(place["model"])),
                **{axis: Value(str(place[axis])) for axis in axes if axis != "model"},
                "student's top-1": Value(shown, mean),
                "paper's top-1": Value(NOTHING if theirs is None else f"{theirs:.2f}", theirs),
                "patches": Value(patches(group)),
                "seconds of inversion": Value(mean_std(seconds, 1), sum(seconds) / len(seconds))
                if seconds
                else Value(NOTHING),
            }
        )
    bars = {"student's top-1": "top-1", "paper's top-1": "top-1", "seconds of inversion": "seconds"}
    names = (
        [name for name in rows[0] if any(row[name].shown not in ("", NOTHING) for row in rows)]
        if rows
        else []
    )
    names = [
        n
        for n in names
        if n in ("method", "model", *bars, "patches") or len({row[n].shown for row in rows}) > 1
    ]
    columns = [Column(name, bars.get(name, ""), name.startswith("paper's")) for name in names]
    return [Summary(sheet.grid, "Knowledge transfer: what a student learns", NOTE, columns, rows)]

"""The student's top-1 against seconds of inversion, one line a method, a mark a pool."""

from __future__ import annotations

import statistics

from matplotlib.axes import Axes

from bench.experiments.equal_seconds.rows import taught
from bench.publish.figures.kinds import Figure, Still
from bench.publish.figures.material import Material
from bench.publish.figures.style import canvas, drawn, look
from bench.publish.parts import grouped

GRID = "equal_seconds"


def draw(material: Material) -> Still:
    rows = material.rows(GRID, "transfer")
    sheet = material.sheet(GRID)
    found = grouped(sheet.cells, "model", "dataset")
    figure = canvas(
        3.9, "Knowledge transfer: top-1 of the student against seconds of inversion", material.scale_line
    )
    axes = figure.subplots(1, len(found), squeeze=False).ravel()
    for one, (panel, entries) in zip(axes, found.items(), strict=True):
        one.set_title(drawn(", ".join(panel)))
        _lines(one, material, grouped(entries, "method", "pool"))
        one.set_xlabel("seconds of the inversions behind a pool")
        one.set_ylabel("top-1 (%)")
        one.set_ylim(0, 100)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    seeds = len({row.cell["seed"] for row in rows})
    return Still(
        figure,
        f"Each mark is a pool, larger ones further right: mean ± standard deviation over {seeds} seeds, both ways. "
        "Images that are not inverted stand at 0 seconds. Seconds are by the clock, and include whatever else the "
        "machine did.",
        vector=True,
    )


def _lines(axes: Axes, material: Material, cells: dict) -> None:
    methods = list(dict.fromkeys(method for method, _ in cells))
    for method in methods:
        pools = [
            list(taught(material.sheet(GRID), own)) for (name, _), own in cells.items() if name == method
        ]
        pools = sorted((own for own in pools if own), key=lambda own: own[0].images)
        if not pools:
            continue
        style = look(method, methods)
        dotted = material.title(GRID, method).startswith("control")
        axes.errorbar(
            [statistics.fmean(one.seconds for one in own) for own in pools],
            [statistics.fmean(one.top1 for one in own) for own in pools],
            [_spread([one.top1 for one in own]) for own in pools],
            [_spread([one.seconds for one in own]) for own in pools],
            color=style["color"],
            marker=style["marker"],
            linestyle=":" if dotted else "-",
            markersize=4.5,
            capsize=2,
            linewidth=1.4,
            label=material.title(GRID, method),
        )


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


FIGURE = Figure("equal_seconds", "The student's top-1 against seconds of inversion", (GRID,), draw)

"""Size against time: files and ways to run them, of each real model."""

from __future__ import annotations

from bench.experiments.deploy.table import ENGINES
from bench.publish.figures.kinds import Figure, Still
from bench.publish.figures.material import Material, NotMade
from bench.publish.figures.style import BLUE, GREY, ORANGE, VERMILION, canvas
from bench.publish.parts import model_title

GRID = "deploy"
COLOURS = dict(zip(ENGINES, (VERMILION, BLUE, GREY, ORANGE), strict=True))
CAPTION = (
    "Size of the file against milliseconds of one picture (medians; bars from least to most), random weights, "
    "{threads} threads. Engines took turns in one process."
)


def draw(material: Material) -> Still:
    rows = [row for row in material.rows(GRID, "deploy") if "milliseconds" in row.metrics("deploy")]
    if not rows:
        raise NotMade("no speed of a deployed model")
    figure = canvas(3.6, "Deployed models: size against time", material.scale_line)
    axes = figure.subplots()
    for row in rows:
        metrics = row.metrics("deploy")
        spent = metrics["milliseconds"].get("1") or next(iter(metrics["milliseconds"].values()))
        for name, title in ENGINES.items():
            size = metrics["bytes"]["int8" if name == "deployed" else "fp32"] / 1e6
            one = spent[name]
            bars = [[one["median"] - one["least"]], [one["most"] - one["median"]]]
            label = title if row is rows[0] else None
            axes.errorbar([one["median"]], [size], xerr=bars, fmt="o", color=COLOURS[name], label=label)
        axes.annotate(
            model_title(row.cell["model"]), (spent["deployed"]["median"], metrics["bytes"]["int8"] / 1e6)
        )
    axes.set(xscale="log", yscale="log", xlabel="milliseconds of one picture", ylabel="megabytes")
    axes.legend()
    return Still(figure, CAPTION.format(threads=rows[0].metrics("deploy")["threads"]), vector=True)


FIGURE = Figure("deploy", "Deployed models: size against time", (GRID,), draw)

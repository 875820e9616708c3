"""Size against time: files and ways to run them, of each real model."""

from __future__ import annotations

import statistics
from collections import defaultdict

from bench.experiments.deploy.table import ENGINES
from bench.publish.figures.kinds import Figure, Still
from bench.publish.figures.material import Material, NotMade, Row
from bench.publish.figures.style import BLUE, GREY, ORANGE, VERMILION, canvas, drawn, spare
from bench.publish.parts import model_title

GRID = "deploy"
COLOURS = dict(zip(ENGINES, (VERMILION, BLUE, GREY, ORANGE), strict=True))
CAPTION = (
    "Size of the file against milliseconds of one picture (medians; bars from least to most), random weights, "
    "{threads} threads. Engines took turns in one process."
)

QUALITY = (
    "What the deployed file answers, against its size: mean ± standard deviation over seeds; less is better in both "
    "panels. Top-1 is of {pictures} test pictures: one is {point:.2f} points."
)


def draw(material: Material) -> Still:
    rows = [row for row in material.rows(GRID, "deploy") if "milliseconds" in row.metrics("deploy")]
    if not rows:
        raise NotMade("no speed of a deployed model")
    figure = canvas(3.6, "Deployed models: size against time", material.scale_line)
    axes = figure.subplots()
    data = []
    for row in rows:
        metrics = row.metrics("deploy")
        spent = metrics["milliseconds"].get("1") or next(iter(metrics["milliseconds"].values()))
        for name, title in ENGINES.items():
            size = metrics["bytes"]["int8" if name == "deployed" else "fp32"] / 1e6
            one = spent[name]
            bars = [[one["median"] - one["least"]], [one["most"] - one["median"]]]
            label = title if row is rows[0] else None
            axes.errorbar([one["median"]], [size], xerr=bars, fmt="o", color=COLOURS[name], label=label)
            place = {"model": row.cell["model"], "bits": row.cell["bits"], "engine": title, "megabytes": size}
            data.append(
                {**place, **{f"{which} milliseconds": one[which] for which in ("median", "least", "most")}}
            )
        axes.annotate(
            model_title(row.cell["model"]), (spent["deployed"]["median"], metrics["bytes"]["int8"] / 1e6)
        )
    axes.set(xscale="log", yscale="log", xlabel="milliseconds of one picture", ylabel="megabytes")
    axes.legend()
    return Still(figure, CAPTION.format(threads=rows[0].metrics("deploy")["threads"]), vector=True, data=data)


def draw_quality(material: Material) -> Still:
    rows = [row for row in material.rows(GRID, "deploy") if "top1" in row.metrics("deploy")]
    if not rows:
        raise NotMade("no answers of a deployed model")
    figure = canvas(3.4, "Deployed models: quality against size", material.scale_line)
    figure.get_layout_engine().set(wspace=0.06)
    panels = figure.subplots(1, 2)
    kinds: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        kinds[tuple(str(row.cell[axis]) for axis in ("model", "bits", "quantizer", "profile"))].append(row)
    for place, (kind, group) in enumerate(kinds.items()):
        found = [row.metrics("deploy") for row in group]
        size = statistics.fmean(one["bytes"] for one in found) / 1e6
        lost = [one["top1"]["full_precision"] - one["top1"]["deployed"] for one in found]
        errors = [100 * one["logit_error"] for one in found]
        for axes, values in zip(panels, (lost, errors), strict=True):
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            axes.errorbar(
                [size], [statistics.fmean(values)], [spread],
                **spare(place), capsize=2, linestyle="none", label=drawn(", ".join(kind)),
            )  # fmt: skip
    panels[0].axhline(0, color="#000000", linewidth=0.8, linestyle=(0, (1, 2)))
    panels[0].set(xlabel="megabytes of the file", ylabel="points of top-1 lost")
    panels[1].set(xlabel="megabytes of the file", ylabel="relative logit error (%)")
    panels[1].legend()
    pictures = rows[0].metrics("deploy")["pictures"]
    return Still(figure, QUALITY.format(pictures=pictures, point=100 / pictures), vector=True)


FIGURE = Figure("deploy", "Deployed models: size against time", (GRID,), draw)
QUALITY_FIGURE = Figure("deploy_quality", "Deployed models: quality against size", (GRID,), draw_quality)

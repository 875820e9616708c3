"""What images are worth for calibration: quality of the quantized model against sparsity, and against seconds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from bench.publish.figures.kinds import Figure, Still
from bench.publish.figures.material import Material, NotMade, Row
from bench.publish.figures.style import BLUE, GREY, PURPLE, VERMILION, canvas, look

BY_SPARSITY, BY_SECONDS = "ablation_sparsity", "ablation_iterations"
LINES = ("-", "--", ":", "-.")  # bit-widths


class Ranked(dict):
    """Colour, marker and name of what chose the patches that stay; a score of one's own takes the next free look."""

    def __missing__(self, score: str) -> tuple[str, str, str]:
        style = look(score, [name for name in (*self, score) if name not in NAMED])
        self[score] = style["color"], style["marker"], score.replace("_", " ")
        return self[score]


NAMED = {
    None: (BLUE, "o", "dense"),
    "cls_attention": (VERMILION, "s", "CLS attention"),
    "random": (PURPLE, "D", "random selection"),
    "least_attention": (GREY, "v", "least attention"),
}
RANKED = Ranked(NAMED)


@dataclass(frozen=True)
class Line:
    """One line of both panels: how it looks, what it is called, and its cells."""

    name: str
    bits: str
    colour: str
    marker: str
    rows: list[Row]


def draw_sparsity(material: Material) -> Still:
    rows = _inversions(material, BY_SPARSITY)
    dense = [row for row in rows if _score(row) is None]
    lines = []
    for score, bits in dict.fromkeys((_score(row), row.cell["bits"]) for row in rows if _score(row)):
        cells = [row for row in rows if (_score(row), row.cell["bits"]) == (score, bits)]
        start = [row for row in dense if row.cell["bits"] == bits]  # whatever ranks patches, 0% is dense
        lines.append(Line(RANKED[score][2], bits, *RANKED[score][:2], [*start, *cells]))
    figure, axes = _axes(
        material, f"Quality of the quantized {material.subject(BY_SPARSITY, rows[0].cell)} against sparsity"
    )
    _plot(axes, lines, _percent_stopped)
    for bits in dict.fromkeys(row.cell["bits"] for row in dense):  # over the lines' own marks
        points = [row for row in dense if row.cell["bits"] == bits]
        _plot(axes, [Line("dense", bits, *RANKED[None][:2], points)], _percent_stopped)
    _finish(axes, rows, "sparsity (% of patches stopped at the end)")
    return Still(
        figure,
        f"Models quantized with images of which more and more patches were stopped: mean ± standard deviation over "
        f"{_seeds(rows)} seeds, for patches ranked by CLS attention and for the control that draws them at random. "
        f"{_resolution(rows)}",
        vector=True,
    )


def draw_seconds(material: Material) -> Still:
    rows = _inversions(material, BY_SECONDS)
    methods = list(dict.fromkeys(row.cell["method"] for row in rows))
    lines = []
    for method, bits in dict.fromkeys((row.cell["method"], row.cell["bits"]) for row in rows):
        style = look(method, methods)
        cells = [row for row in rows if (row.cell["method"], row.cell["bits"]) == (method, bits)]
        title = material.title(BY_SECONDS, method)
        lines.append(Line(title, bits, style["color"], style["marker"], cells))
    figure, axes = _axes(
        material,
        f"Quality of the quantized {material.subject(BY_SECONDS, rows[0].cell)} against seconds of inversion",
    )
    _plot(axes, lines, lambda row: row.metrics("images")["seconds"])
    _finish(axes, rows, "seconds of inversion (logarithmic)")
    for one in axes:
        one.set_xscale("log")
    devices = "; ".join(sorted({row.records["images"]["device"] for row in rows}))
    lengths = sorted({row.records["images"]["settings"]["recipe"]["iterations"] for row in rows})
    return Still(
        figure,
        f"Each mark is a number of iterations ({', '.join(map(str, lengths))}), on {devices}: mean ± standard "
        f"deviation over {_seeds(rows)} seeds. Up to the first stop, sparse is dense. Seconds are as the "
        f"sweep took them, whatever else the machine did: no benchmark. {_resolution(rows)}",
        vector=True,
    )


def _inversions(material: Material, grid: str) -> list[Row]:
    """The cells that hold an inversion and its quantized model: of several models, data sets or whatever else the
    panels do not tell apart, the first."""
    rows = [
        row
        for row in material.rows(grid, "images", "quantize")
        if row.records["images"]["settings"]["source"] == "inversion"
    ]
    free = ("method", "iterations", "bits", "seed")
    rows = [row for row in rows if row.place(*free) == rows[0].place(*free)]
    if len({row.records["images"]["key"] for row in rows}) < 2:
        raise NotMade(f"{grid} has fewer than two finished inversions; make them: {material.command(grid)}")
    material.used[grid] = rows
    return rows


def _axes(material: Material, title: str) -> tuple:
    figure = canvas(3.7, title, material.scale_line)
    figure.get_layout_engine().set(wspace=0.06)
    return figure, figure.subplots(1, 2)


def _plot(axes: Sequence[Axes], lines: Sequence[Line], place: Callable[[Row], float]) -> None:
    """Lines in both panels: a mark for each setting of the images, over its seeds; line styles tell bit-widths."""
    widths = list(dict.fromkeys(line.bits for line in lines))
    for line in lines:
        points: dict[tuple, list[Row]] = defaultdict(list)
        for row in line.rows:
            settings = row.records["images"]["settings"]
            points[str(settings["stopping"]), settings["recipe"]["iterations"]].append(row)
        groups = sorted(points.values(), key=lambda group: statistics.fmean(map(place, group)))
        for one, metric, factor in zip(axes, ("top1", "logit_error"), (1, 100), strict=True):
            values = [[factor * row.metrics("quantize")[metric] for row in group] for group in groups]
            one.errorbar(
                [statistics.fmean(map(place, group)) for group in groups],
                [statistics.fmean(each) for each in values],
                [statistics.stdev(each) if len(each) > 1 else 0 for each in values],
                color=line.colour,
                marker=line.marker,
                linestyle=LINES[widths.index(line.bits) % len(LINES)] if len(groups) > 1 else "none",
                markersize=4.5,
                capsize=2,
                linewidth=1.4,
                label=f"{line.name}, {line.bits}",
            )


def _finish(axes: Sequence[Axes], rows: Sequence[Row], xlabel: str) -> None:
    full = statistics.fmean(row.metrics("quantize")["reference_top1"] for row in rows)
    axes[0].axhline(full, color="#000000", linewidth=0.8, linestyle=(0, (1, 2)))
    place = axes[0].get_yaxis_transform()  # x in shares of the width, y in data
    axes[0].text(0.01, full, "full precision", transform=place, fontsize=7.5, va="bottom")
    axes[0].set(xlabel=xlabel, ylabel="top-1 (%)")
    axes[1].set(xlabel=xlabel, ylabel="relative logit error (%)")
    axes[1].legend()


def _percent_stopped(row: Row) -> float:
    return 100 * row.metrics("images")["sparsity"]


def _seeds(rows: Sequence[Row]) -> int:
    return len({row.cell["seed"] for row in rows})


def _score(row: Row) -> str | None:
    """What ranked the patches; None when dense."""
    return row.records["images"]["settings"]["score"]


def _resolution(rows: Sequence[Row]) -> str:
    """How fine top-1 can be at all."""
    pictures = rows[0].metrics("quantize")["pictures"]
    return f"Top-1 is of {pictures} test pictures: one is {100 / pictures:.2f} points."


SPARSITY = Figure("sparsity", "Quality against sparsity", (BY_SPARSITY,), draw_sparsity)
SECONDS = Figure("seconds", "Quality against seconds of inversion", (BY_SECONDS,), draw_seconds)

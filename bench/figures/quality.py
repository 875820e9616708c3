"""What images are worth for calibration: quality of the quantized model against sparsity, and against seconds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from bench.figures.kinds import Figure, Still
from bench.figures.material import Material, NotMade, Row
from bench.figures.style import BLUE, GREY, LOOKS, PURPLE, VERMILION, canvas

BY_SPARSITY, BY_SECONDS = "ablation_sparsity", "ablation_iterations"
LINES = ("-", "--", ":", "-.")  # bit-widths
RANKED = {  # how the patches that stay are chosen: colour, marker, name
    None: (BLUE, "o", "dense"),
    "cls_attention": (VERMILION, "s", "CLS attention"),
    "random": (PURPLE, "D", "random selection"),
    "least_attention": (GREY, "v", "least attention"),
}
Series = tuple[str | None, str]  # score (None: dense), bit-widths


def draw_sparsity(material: Material) -> Still:
    rows = _inversions(material, BY_SPARSITY)
    series = _series(rows)
    dense = {bits: cells for (score, bits), cells in series.items() if score is None}
    figure, axes = _axes(material, f"Quality of the quantized {rows[0].cell['model']} against sparsity")
    for (score, bits), cells in series.items():
        if score is not None:  # every score starts from the dense images
            _plot(axes, score, bits, series, [*dense.get(bits, []), *cells], _percent_stopped)
    _finish(axes, rows, "sparsity (% of patches stopped at the end)")
    return Still(
        figure,
        f"Models quantized with images of which more and more patches were stopped: mean ± standard deviation over "
        f"{_seeds(rows)} seeds, for patches ranked by CLS attention and for the control that draws them at random; 0% "
        f"is dense. {_resolution(rows)}",
        vector=True,
    )


def draw_seconds(material: Material) -> Still:
    rows = _inversions(material, BY_SECONDS)
    series = _series(rows)
    figure, axes = _axes(
        material, f"Quality of the quantized {rows[0].cell['model']} against seconds of inversion"
    )
    for (score, bits), cells in series.items():
        _plot(axes, score, bits, series, cells, lambda row: row.metrics("images")["seconds"])
    devices = "; ".join(sorted({row.records["images"]["device"] for row in rows}))
    _finish(axes, rows, "seconds of inversion (logarithmic)")
    for one in axes:
        one.set_xscale("log")
    return Still(
        figure,
        f"Each mark is a number of iterations, from {_iterations(rows)[0]} to {_iterations(rows)[-1]}, on {devices}: "
        f"mean ± standard deviation over {_seeds(rows)} seeds. {_resolution(rows)}",
        vector=True,
    )


def _inversions(material: Material, grid: str) -> list[Row]:
    """The cells of a grid's first model that hold an inversion and its quantized model."""
    rows = [
        row
        for row in material.rows(grid, "images", "quantize")
        if row.records["images"]["settings"]["source"] == "inversion"
    ]
    rows = [row for row in rows if row.cell["model"] == rows[0].cell["model"]]
    if len({row.records["images"]["key"] for row in rows}) < 2:
        raise NotMade(f"{grid} has fewer than two finished inversions; make them: {material.command(grid)}")
    material.used[grid] = rows
    return rows


def _series(rows: Sequence[Row]) -> dict[Series, list[Row]]:
    series: dict[Series, list[Row]] = defaultdict(list)
    for row in rows:
        series[row.records["images"]["settings"]["score"], row.cell["bits"]].append(row)
    return series


def _axes(material: Material, title: str) -> tuple:
    figure = canvas(3.7, title, material.scale_line)
    return figure, figure.subplots(1, 2)


def _plot(
    axes: Sequence[Axes],
    score: str | None,
    bits: str,
    series: dict[Series, list[Row]],
    rows: Sequence[Row],
    place: Callable[[Row], float],
) -> None:
    """One line in both panels: a mark for each setting of the images, over its seeds."""
    points: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        settings = row.records["images"]["settings"]
        points[str(settings["stopping"]), settings["recipe"]["iterations"]].append(row)
    groups = sorted(points.values(), key=lambda group: statistics.fmean(map(place, group)))
    colour, marker, name = RANKED.get(score, (LOOKS["real"][0], "^", str(score)))
    widths = list(dict.fromkeys(bits for _, bits in series))
    for one, metric, factor in zip(axes, ("top1", "logit_error"), (1, 100), strict=True):
        values = [[factor * row.metrics("quantize")[metric] for row in group] for group in groups]
        one.errorbar(
            [statistics.fmean(map(place, group)) for group in groups],
            [statistics.fmean(each) for each in values],
            [statistics.stdev(each) if len(each) > 1 else 0 for each in values],
            color=colour,
            marker=marker,
            linestyle=LINES[widths.index(bits) % len(LINES)],
            markersize=4.5,
            capsize=2,
            linewidth=1.4,
            label=f"{name}, {bits}",
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


def _iterations(rows: Sequence[Row]) -> list[int]:
    return sorted({row.records["images"]["settings"]["recipe"]["iterations"] for row in rows})


def _resolution(rows: Sequence[Row]) -> str:
    """How fine top-1 can be at all."""
    pictures = rows[0].metrics("quantize")["pictures"]
    return f"Top-1 is of {pictures} test pictures: one is {100 / pictures:.2f} points."


SPARSITY = Figure("sparsity", "Quality against sparsity", (BY_SPARSITY,), draw_sparsity)
SECONDS = Figure("seconds", "Quality against seconds of inversion", (BY_SECONDS,), draw_seconds)

"""The student's top-1 against steps (the paper's convergence figure), with bands over seeds, from records alone."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from bench.publish.figures.kinds import Figure, Still
from bench.publish.figures.material import Material, Row
from bench.publish.figures.style import BLACK, canvas, drawn, look

GRID = "kd"
Panel = tuple[str, ...]  # model, data set, pool, and the student where the grid has several


def panel_of(cell: Mapping[str, Any]) -> Panel:
    """Which panel a cell belongs to."""
    return tuple(str(cell[axis]) for axis in ("model", "dataset", "pool", "student") if axis in cell)


def draw(material: Material) -> Still:
    rows = material.rows(GRID, "transfer")
    panels: dict[Panel, list[Row]] = defaultdict(list)
    for row in rows:
        panels[panel_of(row.cell)].append(row)
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    figure = canvas(
        0.6 + 3.6 * down, "Knowledge transfer: top-1 of the student against steps", material.scale_line
    )
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for unused in axes[len(panels) :]:
        unused.set_visible(False)
    for one, (panel, cells) in zip(axes, panels.items(), strict=False):
        _panel(one, material, panel, cells)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    seeds = {len({row.cell["seed"] for row in cells}) for cells in panels.values()}
    return Still(
        figure,
        f"Lines are means over {' or '.join(map(str, sorted(seeds)))} seeds, bands ± one standard deviation; every "
        "line has the same number of images and steps. Controls are dotted. Test pictures are shown whole.",
        vector=True,
    )


def _panel(axes: Axes, material: Material, panel: Panel, rows: Sequence[Row]) -> None:
    methods = list(dict.fromkeys(row.cell["method"] for row in rows))
    for method in methods:
        curves = [row.metrics("transfer")["curve"] for row in rows if row.cell["method"] == method]
        steps = [entry["step"] for entry in curves[0]]
        values = [[entry["top1"] for entry in curve] for curve in curves]
        mean = [statistics.fmean(at) for at in zip(*values, strict=True)]
        spread = [statistics.stdev(at) if len(at) > 1 else 0.0 for at in zip(*values, strict=True)]
        shown = look(method, methods)
        if material.title(GRID, method).startswith("control"):
            shown["linestyle"] = ":"
        axes.plot(steps, mean, label=material.title(GRID, method), markevery=max(1, len(steps) // 6), **shown)
        low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(steps, low, high, color=shown["color"], alpha=0.15, linewidth=0)
    _teacher(axes, material, panel)
    axes.set_title(drawn(", ".join(panel)))
    axes.set_xlabel("steps")
    axes.set_ylabel("top-1 (%)")
    axes.set_ylim(0, 100)


def _teacher(axes: Axes, material: Material, panel: Panel) -> None:
    """A line where the teacher stands, if it was scored."""
    for entry in material.sheet(GRID).cells:
        cell = entry["cell"]
        record = material.sheet(GRID).records.get(entry["tasks"].get("evaluate", ""))
        if panel_of(cell) == panel and record and record["status"] == "done":
            axes.axhline(
                record["metrics"]["top1"], color=BLACK, linewidth=0.9, linestyle="--", label="Teacher"
            )
            return


FIGURE = Figure("convergence", "Convergence of the student", (GRID,), draw)

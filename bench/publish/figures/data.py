"""A figure's data as CSV beside it: what it says itself, or else every line and bar that was drawn."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure as Canvas

from bench.engine import atomic
from bench.publish.figures.kinds import Animation, Still

COLUMNS = ("panel", "x axis", "y axis", "series", "x", "y", "y low", "y high")


def write(drawn: Still | Animation, folder: Path, name: str) -> str:
    """Write <name>.csv below a folder; its name, or "" where the figure is pictures alone, and none is left there."""
    rows = rows_of(drawn)
    path = folder / f"{name}.csv"
    if not rows:
        path.unlink(missing_ok=True)
        return ""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([_shown(value) for value in row.values()] for row in rows)
    atomic.write_text(path, buffer.getvalue())
    return path.name


def rows_of(drawn: Still | Animation) -> Sequence[Mapping[str, Any]]:
    """The figure's own rows; of a line plot without any, what its axes hold."""
    if isinstance(drawn, Animation):
        return []
    if drawn.data:
        return drawn.data
    return list(_drawn(drawn.canvas)) if drawn.vector else []


def _drawn(canvas: Canvas) -> Iterator[dict[str, Any]]:
    """Every labelled series of every panel, point by point, with the ends of its bars along y."""
    for place, axes in enumerate(canvas.axes):
        panel = axes.get_title() or (str(place + 1) if len(canvas.axes) > 1 else "")
        for series, xs, ys, ends in _series(axes):
            for x, y, (low, high) in zip(xs, ys, ends, strict=True):
                values = (panel, axes.get_xlabel(), axes.get_ylabel(), series, x, y, low, high)
                yield dict(zip(COLUMNS, values, strict=True))


def _series(axes: Axes) -> Iterator[tuple[str, Sequence[float], Sequence[float], Sequence[tuple[Any, Any]]]]:
    """(name, x, y, (low, high) of each point): error bars with theirs, other named lines with none."""
    for container in axes.containers:
        if isinstance(container, ErrorbarContainer) and container.lines[0] is not None:
            line = container.lines[0]
            bars = [segment for one in container.lines[2] for segment in one.get_segments()]
            upright = [bar for bar in bars if len(bar) == 2 and bar[0][0] == bar[1][0]]
            ys = line.get_ydata()
            ends = (
                [(bar[0][1], bar[1][1]) for bar in upright]
                if len(upright) == len(ys)
                else [("", "")] * len(ys)
            )
            yield str(container.get_label()), line.get_xdata(), ys, ends
    for line in axes.lines:
        label = str(line.get_label())
        if not label.startswith("_"):
            ys = np.asarray(line.get_ydata())
            yield label, np.asarray(line.get_xdata()), ys, [("", "")] * len(ys)


def _shown(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, (float, np.floating)) else value

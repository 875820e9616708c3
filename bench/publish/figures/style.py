"""How every figure looks: sizes, the colour-blind-safe palette, one colour and mark for each method.

Figures are drawn 8 inches wide and shown about 800 pixels wide (README, report): text of 9 points stays readable.
Shapes: C channels, H x W pixels, R x Q patches.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Canvas
from matplotlib.transforms import ScaledTranslation
from torch import Tensor

WIDTH = 8.0  # inches
DPI = 150
TITLE = 0.45  # inches for the title and the line under it
WIDEST_GAP = 0.2  # inches between pictures

# Okabe and Ito's palette without its yellow, which is too pale for lines.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
GREY = "#7F7F7F"
STOPPED = "#000000"  # "blacked out"
EDGE = VERMILION  # around what is kept, where black alone could be a dark picture

# A method looks the same in every figure; what is not named here takes the next free look.
LOOKS: dict[str, tuple[str, str, str]] = {  # colour, marker, line
    "deepinversion_dense": (BLUE, "o", "-"),
    "deepinversion_sparse": (VERMILION, "s", "-"),
    "psaq_dense": (SKY, "^", "--"),
    "psaq_sparse": (ORANGE, "v", "--"),
    "random_selection": (PURPLE, "D", ":"),
    "noise_random_patches": (GREY, "P", ":"),
    "gaussian_noise": (GREY, "X", ":"),
    "real": (GREEN, "*", "-."),
    "dense_random_patches": (SKY, "o", ":"),
    "real_random_patches": (ORANGE, "*", ":"),
}
SPARE = tuple(itertools.product((GREEN, PURPLE, ORANGE, SKY, BLACK, BLUE, VERMILION), ("^", "D", "v", "P")))

SETTINGS: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",  # looks alike wherever it is opened
    "svg.hashsalt": "figures",  # same figure, same bytes
}


def drawn(text: str) -> str:
    """Any text as matplotlib draws it as it stands: one line, no formulas, and no name that legends leave out."""
    line = " ".join(text.split()).replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line


def look(method: str, others: Iterable[str] = ()) -> dict[str, str]:
    """Keyword arguments of `plot` for a method; `others` are all methods of the figure, in their order."""
    if method in LOOKS:
        colour, marker, line = LOOKS[method]
    else:
        unknown = [name for name in others if name not in LOOKS]
        place = unknown.index(method) if method in unknown else 0
        (colour, marker), line = SPARE[place % len(SPARE)], "-."
    return {"color": colour, "marker": marker, "linestyle": line}


def spare(place: int) -> dict[str, str]:
    """Colour and marker of the place-th of several series that are no methods: neighbours differ in both."""
    colour, marker = SPARE[
        5 * place % len(SPARE)
    ]  # 5 and 28 have no common divisor: all looks before any again
    return {"color": colour, "marker": marker}


def canvas(height: float, title: str, scale_line: str, dpi: int = DPI) -> Canvas:
    """An empty figure with a title that names the scale. Not of pyplot: nothing global, nothing to close."""
    figure = Canvas(figsize=(WIDTH, height), dpi=dpi, layout="constrained")
    figure.get_layout_engine().set(rect=(0.005, 0.005, 0.99, 0.99 - TITLE / height))
    figure.text(0.006, 1 - 0.05 / height, drawn(title), fontsize=11, fontweight="bold", ha="left", va="top")
    figure.text(0.006, 1 - 0.25 / height, drawn(scale_line), fontsize=8, color="#444444", ha="left", va="top")
    return figure


def picture_grid(
    shape: tuple[int, int],
    pixels: tuple[int, int],
    title: str,
    scale_line: str,
    *,
    labels: float = 0.3,
    heads: int = 1,
    breaks: Collection[int] = (),
    below: float = 0.0,
    dpi: int = DPI,
) -> tuple[Canvas, np.ndarray]:
    """A figure with pictures in rows and columns, close together, each an exact multiple of its pixels where it can be.

    shape: rows and columns; pixels: height and width of one picture. labels: inches left for the rows' labels;
    heads: lines of text above the columns; breaks: rows with a wider gap before them; below: inches left free.
    Returns the figure and its axes [rows, columns], in device pixels so that no picture is resampled unevenly.
    """
    rows, columns = shape
    gap, wide_gap, margin = round(0.04 * dpi), round(0.16 * dpi), 0.03
    width = int((WIDTH - labels - margin) * dpi - gap * (columns - 1)) // columns
    width -= width % pixels[1] if width >= pixels[1] else 0
    height = width * pixels[0] // pixels[1]
    left = int((WIDTH - labels - margin) * dpi) - columns * width
    across = min(left // max(1, columns - 1), round(WIDEST_GAP * dpi))
    top = round((TITLE + 0.05 + 0.155 * heads) * dpi)
    extra = (wide_gap - gap) * len(breaks)
    total = top + rows * (height + gap) + extra + round((below + margin) * dpi)
    figure = canvas(total / dpi, title, scale_line, dpi)
    figure.set_layout_engine("none")
    whole = (WIDTH * dpi, total)
    axes = np.empty(shape, dtype=object)
    y = total - top
    for row in range(rows):
        y -= height + (gap if row else 0) + (wide_gap - gap if row in breaks else 0)
        for column in range(columns):
            x = round(labels * dpi) + column * (width + across)
            axes[row, column] = figure.add_axes(
                (x / whole[0], y / whole[1], width / whole[0], height / whole[1])
            )
    return figure, axes


def show_picture(axes: Axes, pixels: Tensor | np.ndarray) -> None:
    """One picture [C, H, W] in [0, 1] (C 1 or 3) without ticks: enlarged, pixels stay squares; reduced, they blend."""
    picture = np.asarray(pixels)
    enlarged = axes.get_window_extent().width >= picture.shape[2]
    axes.imshow(
        picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0),
        cmap="gray",
        vmin=0,
        vmax=1,
        interpolation="nearest" if enlarged else "antialiased",
    )
    bare(axes)


def show_kept(axes: Axes, pixels: Tensor, mask: Tensor, rows: int, columns: int) -> None:
    """A picture [C, H, W] with stopped patches (mask bool [R*Q], false) blacked out, and what is kept outlined where
    the picture is grey and may itself be black."""
    kept = np.asarray(mask).reshape(rows, columns)
    height, width = pixels.shape[1] // rows, pixels.shape[2] // columns
    inside = np.kron(kept, np.ones((height, width), dtype=bool))
    show_picture(
        axes, np.where(inside, np.asarray(pixels), np.array(to_rgb(STOPPED))[: len(pixels), None, None])
    )
    if len(pixels) == 1:
        outline(axes, kept, height, width)


def outline(axes: Axes, kept: np.ndarray, height: float, width: float) -> None:
    """Lines where a kept patch (kept bool [R, Q]) meets a stopped one; patches are height x width in data units."""
    if kept.all():
        return
    rows, columns = kept.shape
    lines = []
    for row, column in itertools.product(range(rows), range(columns + 1)):
        left = column > 0 and kept[row, column - 1]
        right = column < columns and kept[row, column]
        if left != right:
            lines.append(([column * width - 0.5] * 2, [row * height - 0.5, (row + 1) * height - 0.5]))
    for row, column in itertools.product(range(rows + 1), range(columns)):
        above = row > 0 and kept[row - 1, column]
        below = row < rows and kept[row, column]
        if above != below:
            lines.append(([column * width - 0.5, (column + 1) * width - 0.5], [row * height - 0.5] * 2))
    for xs, ys in lines:
        axes.plot(xs, ys, color=EDGE, linewidth=0.8, solid_capstyle="butt", clip_on=False, antialiased=False)


def bare(axes: Axes) -> None:
    """No ticks, no frame, no grid: for pictures."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def row_label(axes: Axes, text: str) -> None:
    """What a row of pictures shows, left of its first picture."""
    shift = ScaledTranslation(-0.07, 0, axes.figure.dpi_scale_trans)
    axes.text(0, 0.5, text, transform=axes.transAxes + shift, ha="right", va="center", fontsize=8.5)

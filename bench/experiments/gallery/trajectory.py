"""One image through the inversion, stopped patches blacked out (the paper's Figure 7): a strip and a moving picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from bench.experiments.gallery.pictures import GRID, Shown, class_name, dense_run, sparse_run
from bench.publish.figures.files import to_image
from bench.publish.figures.kinds import Animation, Figure, Still
from bench.publish.figures.material import Material
from bench.publish.figures.style import picture_grid, row_label, show_kept

STRIP_IMAGES = 3
MOVING_IMAGES = 5
MOVING_DPI = 80  # frames are many: 640 pixels wide
FRAME, LAST = 220, 2500  # milliseconds


def draw_strip(material: Material) -> Still:
    run = sparse_run(material)
    iterations = [0, *run.stops, run.images.made["iterations"]]
    count = min(STRIP_IMAGES, run.images.count)
    figure, axes = picture_grid(
        (count, len(iterations)),
        run.images.pixels.shape[2:],
        f"Images of {run.model} through the sparse inversion",
        material.scale_line,
        labels=0.75,
        heads=2,
    )
    for column, iteration in enumerate(iterations):
        for image in range(count):
            kept = _show(axes[image][column], run, iteration, image)
        name = {0: "noise", len(iterations) - 1: "end"}.get(column, "stop")
        axes[0][column].set_title(f"{name}: iteration {iteration}\n{kept} patches", fontsize=8)
    for image in range(count):
        row_label(axes[image][0], class_name(material, int(run.images.targets[image])))
    return Still(
        figure,
        "From noise to the end (as the paper's Figure 7): right after each stop, the patches that stopped are "
        "black. They never change again; what goes on is optimised without them.",
    )


def draw_moving(material: Material) -> Animation:
    run, dense = sparse_run(material), dense_run(material)
    rows = [row for row in (dense, run) if row is not None]
    end = run.images.made["iterations"]
    iterations = [t for t in run.snapshots if all(t in row.snapshots for row in rows)]
    if not iterations or iterations[-1] != end:
        run.shot(end)  # says what is missing
    frames = [_frame(material, rows, iteration, end) for iteration in iterations]
    longer = [LAST if t == end else 2 * FRAME if t in run.stops else FRAME for t in iterations]
    return Animation(
        frames,
        longer,
        f"{len(rows) * _columns(rows)} inversions from noise to iteration {end}; the sparse one stops patches at "
        f"{', '.join(map(str, run.stops))}, and what has stopped is black.",
    )


def _columns(rows: Sequence[Shown]) -> int:
    return min(MOVING_IMAGES, *(row.images.count for row in rows))


def _frame(material: Material, rows: Sequence[Shown], iteration: int, end: int) -> Image.Image:
    columns = _columns(rows)
    figure, axes = picture_grid(
        (len(rows), columns),
        rows[0].images.pixels.shape[2:],
        f"Inversion of {rows[0].model}: iteration {iteration} of {end}",
        material.scale_line,
        labels=1.15,
        dpi=MOVING_DPI,
    )
    for line, row in enumerate(rows):
        for column in range(columns):
            kept = _show(axes[line][column], row, iteration, column)
            if line == 0:
                axes[0][column].set_title(class_name(material, int(row.images.targets[column])), fontsize=8)
        row_label(axes[line][0], f"{row.label}\n{kept} of {row.images.grid.patches}\npatches go on")
    return to_image(figure)


def _show(axes, run: Shown, iteration: int, image: int) -> int:
    """A picture as it was at an iteration; returns the number of patches still in."""
    shot, grid = run.shot(iteration), run.images.grid
    traces = run.images.traces
    mask = traces["snapshot_mask"][shot, image] if run.sparse else torch.ones(grid.patches, dtype=torch.bool)
    show_kept(axes, traces["snapshot_pixels"][shot, image], mask, grid.rows, grid.columns)
    return int(mask.sum())


STRIP = Figure("trajectory", "One image through the inversion", (GRID,), draw_strip)
MOVING = Figure("inversion", "The inversion as a moving picture", (GRID,), draw_moving)

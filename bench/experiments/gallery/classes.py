"""Inverted images by class, dense and sparse one above the other (the paper's Figure 5)."""

from __future__ import annotations

import torch

from bench.experiments.gallery.pictures import GRID, Shown, class_name, main_model, shown
from bench.publish import scale_notes
from bench.publish.figures.kinds import Figure, Still
from bench.publish.figures.material import Material
from bench.publish.figures.style import bare, picture_grid, row_label, show_kept

COLUMNS = 10  # classes shown
EACH = 2  # images of a class and method


def draw(material: Material) -> Still:
    model = main_model(material)
    rows = shown(material, model)
    first = next((row for row in rows if row.inverted), rows[0])
    classes = list(dict.fromkeys(first.images.targets.tolist()))[:COLUMNS]
    lines = [(row, nth) for row in rows for nth in range(EACH if row.inverted else 1)]
    figure, axes = picture_grid(
        (len(lines), len(classes)),
        rows[0].images.pixels.shape[2:],
        f"Images of {model} by class",
        material.scale_line,
        labels=1.15,
        breaks=[line for line, (_, nth) in enumerate(lines) if line and nth == 0],
    )
    for column, target in enumerate(classes):
        axes[0][column].set_title(class_name(material, target), fontsize=8)
    for line, (row, nth) in enumerate(lines):
        for column, target in enumerate(classes):
            _show(axes[line][column], row, target, nth)
        if nth == 0:
            row_label(axes[line][0], row.describe())
    return Still(
        figure,
        f"Images of {len(classes)} classes (as the paper's Figure 5), seed {first.row.cell['seed']}, the first of each "
        f"class as they came: none was picked. Stopped patches are black. {scale_notes.pictures(material.sheet(GRID))}",
    )


def _show(axes, row: Shown, target: int, nth: int) -> None:
    """The nth image of a class, or a note that chance drew none."""
    places = (row.images.targets == target).nonzero().flatten()
    if nth >= len(places):
        bare(axes)
        axes.text(0.5, 0.5, "none drawn", ha="center", va="center", fontsize=6, color="#777777")
        return
    place = int(places[nth])
    grid = row.images.grid
    mask = row.images.mask()[place] if row.sparse else torch.ones(grid.patches, dtype=torch.bool)
    show_kept(axes, row.images.pixels[place], mask, grid.rows, grid.columns)


FIGURE = Figure("classes", "Inverted images by class", (GRID,), draw)

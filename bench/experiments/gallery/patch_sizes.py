"""The same inversion of models with different patch sizes (the paper's Figure 6)."""

from __future__ import annotations

from bench.experiments.gallery.pictures import GRID, class_name, shown
from bench.publish.figures.kinds import Figure, Still
from bench.publish.figures.material import Material, NotMade
from bench.publish.figures.style import picture_grid, row_label, show_kept

COLUMNS = 8


def draw(material: Material) -> Still:
    rows = [row for row in shown(material) if row.inverted]
    sizes = sorted({row.images.patch_size for row in rows})
    if len(sizes) < 2:
        raise NotMade(f"images of one patch size only; the others: {material.command(GRID)}")
    rows = sorted(rows, key=lambda row: (row.images.patch_size, row.sparse))
    columns = min(COLUMNS, *(row.images.count for row in rows))
    figure, axes = picture_grid(
        (len(rows), columns),
        rows[0].images.pixels.shape[2:],
        "The same inversion at different patch sizes",
        material.scale_line,
        labels=1.3,
        breaks=[
            line
            for line in range(1, len(rows))
            if rows[line].images.patch_size != rows[line - 1].images.patch_size
        ],
    )
    for line, row in enumerate(rows):
        grid, images = row.images.grid, row.images
        for column in range(columns):
            show_kept(
                axes[line][column], images.pixels[column], images.mask()[column], grid.rows, grid.columns
            )
            if line == 0:
                axes[line][column].set_title(class_name(material, int(images.targets[column])), fontsize=8)
        height, width = images.patch_size
        row_label(axes[line][0], f"patches of {height}×{width}\n{row.describe()}")
    models = ", ".join(dict.fromkeys(row.model for row in rows))
    return Still(
        figure,
        f"The same recipe, schedule, seed and classes for models that differ in their patch size ({models}; as the "
        "paper's Figure 6). Stopped patches are black. Larger patches leave fewer to choose from.",
    )


FIGURE = Figure("patch_sizes", "Patch sizes", (GRID,), draw)

"""What ranks the patches: CLS attention of the last block at each stop (paper section 3)."""

from __future__ import annotations

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm

from bench.experiments.gallery.pictures import GRID, Shown, class_name, sparse_run
from bench.publish.figures.kinds import Figure, Still
from bench.publish.figures.material import Material, NotMade
from bench.publish.figures.style import bare, outline, picture_grid, row_label, show_kept

IMAGES = 3
MAP = "cividis"  # perceptually even, and the same to colour-blind eyes
SCORE = "cls_attention"
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.7, 1, 1.4, 2, 3, 5, 10, 20, 50)


def draw(material: Material) -> Still:
    run = sparse_run(material)
    if run.settings["score"] != SCORE:
        raise NotMade(f"the sparse images were not ranked by {SCORE}")
    count = min(IMAGES, run.images.count)
    relative = relative_attention(run)
    finite = relative[:, :count][np.isfinite(relative[:, :count])]
    norm = LogNorm(max(finite.min(), finite.max() / 1000), finite.max())
    stops, grid = run.stops, run.images.grid
    figure, axes = picture_grid(
        (count, 2 * len(stops) + 1),
        (grid.height, grid.width),
        f"CLS attention at each stop of {run.model}",
        material.scale_line,
        labels=0.75,
        heads=2,
        below=0.62,
    )
    for image in range(count):
        for place, stop in enumerate(stops):
            seen, attention = axes[image][2 * place], axes[image][2 * place + 1]
            shot = run.shot(stop)
            before = np.isfinite(relative[place, image])
            after = run.images.traces["snapshot_mask"][shot, image].numpy()
            show_kept(
                seen, run.images.traces["snapshot_pixels"][shot, image], before, grid.rows, grid.columns
            )
            _show_map(attention, relative[place, image], after, grid, norm)
            if image == 0:
                seen.set_title(f"stop at {stop}\n{before.sum()} patches", fontsize=8)
                attention.set_title(f"attention\n{after.sum()} stay", fontsize=8)
        last = axes[image][-1]
        show_kept(last, run.images.pixels[image], run.images.mask()[image], grid.rows, grid.columns)
        if image == 0:
            last.set_title(
                f"end ({run.images.made['iterations']})\n{run.images.kept.shape[1]} patches", fontsize=8
            )
        row_label(axes[image][0], class_name(material, int(run.images.targets[image])))
    _colour_bar(figure, norm)
    return Still(
        figure,
        "At each stop: the image with the patches that are still in, and beside it the last block's attention from "
        "CLS to each of them (mean over heads, un-jittered), by which they are ranked. What stays is outlined; "
        "patches that had stopped before are left white.",
    )


def _colour_bar(figure, norm: LogNorm) -> None:
    height = figure.get_size_inches()[1]
    axes = figure.add_axes((0.2, 0.42 / height, 0.6, 0.1 / height))
    bar = figure.colorbar(ScalarMappable(norm, MAP), cax=axes, orientation="horizontal")
    ticks = [tick for tick in TICKS if norm.vmin <= tick <= norm.vmax]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.ax.minorticks_off()
    bar.set_label("CLS attention × tokens still in (1 = an even share; logarithmic)", fontsize=8)
    bar.ax.grid(False)


def relative_attention(run: Shown) -> np.ndarray:
    """Attention [stops, B, P] times the number of tokens, CLS included: 1 is what even attention would give."""
    importance = run.images.traces["importance"].numpy()
    tokens = np.isfinite(importance).sum(axis=2, keepdims=True) + 1
    return importance * tokens


def _show_map(axes, values: np.ndarray, stays: np.ndarray, grid, norm: LogNorm) -> None:
    axes.imshow(values.reshape(grid.rows, grid.columns), cmap=MAP, norm=norm, interpolation="nearest")
    bare(axes)
    outline(axes, stays.reshape(grid.rows, grid.columns), 1, 1)


FIGURE = Figure("importance", "CLS attention at each stop", (GRID,), draw)

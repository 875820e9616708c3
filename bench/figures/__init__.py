"""Figures from records and artifacts alone, at any time: `python -m bench.figures`.

To add a figure, write a module with a `Figure` (bench/figures/kinds.py) and name it here. What is not there to draw
from is raised as NotMade; the other figures are made all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib

from bench.errors import BenchError
from bench.figures import classes, convergence, cost, importance, loss, patch_sizes, quality, trajectory
from bench.figures.files import remove, save
from bench.figures.kinds import Figure
from bench.figures.material import Material, NotMade
from bench.figures.style import SETTINGS

FIGURES: tuple[Figure, ...] = (
    trajectory.MOVING,
    trajectory.STRIP,
    importance.FIGURE,
    classes.FIGURE,
    patch_sizes.FIGURE,
    loss.FIGURE,
    quality.SPARSITY,
    quality.SECONDS,
    convergence.FIGURE,
    cost.FIGURE,
)


@dataclass(frozen=True)
class Outcome:
    """What became of a figure: its files and caption, or why it was not made. material: what was used for it."""

    figure: Figure
    material: Material
    files: tuple[str, ...] = ()
    caption: str = ""
    missing: str = ""


def feeding(grid: str) -> tuple[Figure, ...]:
    """The figures that draw from a grid. Raises BenchError if none does."""
    chosen = tuple(figure for figure in FIGURES if grid in figure.grids)
    if not chosen:
        grids = sorted({name for figure in FIGURES for name in figure.grids})
        raise BenchError(
            f"no figure draws from the grid {grid!r}; those that feed figures: {', '.join(grids)}"
        )
    return chosen


def draw(figure: Figure, material: Material, folder: Path) -> Outcome:
    """Draw one figure into a folder, or take its files away where it cannot be drawn."""
    material = material.afresh()
    try:
        with matplotlib.rc_context(SETTINGS):
            drawn = figure.draw(material)
            files = save(drawn, folder, figure.name)
    except NotMade as reason:
        remove(folder, figure.name)
        return Outcome(figure, material, missing=str(reason))
    return Outcome(figure, material, tuple(files), drawn.caption)

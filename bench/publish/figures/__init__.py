"""Figures from records and artifacts alone, at any time: `python -m bench figures`.

A `Figure` (kinds.py) is named by the experiment that it belongs to (bench/experiments). What is not there to draw from
is raised as NotMade; the other figures are made all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib

from bench.engine import include
from bench.errors import BenchError
from bench.experiments import EXPERIMENTS, part
from bench.publish.figures import data
from bench.publish.figures.files import remove, save
from bench.publish.figures.kinds import Figure
from bench.publish.figures.material import Material, NotMade
from bench.publish.figures.style import SETTINGS


def all_figures() -> tuple[Figure, ...]:
    """The figures of every experiment."""
    return tuple(part(figure) for experiment in EXPERIMENTS.values() for figure in experiment.figures)


@dataclass(frozen=True)
class Outcome:
    """What became of a figure: its files and caption, or why it was not made. material: what was used for it.
    data: the CSV beside it, if it has one."""

    figure: Figure
    material: Material
    files: tuple[str, ...] = ()
    caption: str = ""
    missing: str = ""
    data: str = ""


def feeding(grid: str) -> tuple[Figure, ...]:
    """The figures that draw from a grid. Raises BenchError if none does."""
    chosen = tuple(figure for figure in all_figures() if grid in figure.grids)
    if not chosen:
        grids = sorted({name for figure in all_figures() for name in figure.grids})
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
            table = data.write(drawn, folder, figure.name)
    except NotMade as reason:
        remove(folder, figure.name)
        return Outcome(figure, material, missing=str(reason))
    except Exception as error:  # of a figure of the user's own: the others are drawn all the same
        line = include.explained(error)
        if line is None:
            raise
        remove(folder, figure.name)
        return Outcome(figure, material, missing=line)
    return Outcome(figure, material, tuple(files), drawn.caption, data=table)

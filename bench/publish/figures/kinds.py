"""What a figure is: its name, the grids it needs, and a function from material to a still or a moving picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure as Canvas
from PIL import Image

from bench.publish.figures.material import Material


@dataclass(frozen=True)
class Still:
    """A drawn figure. caption: what is seen, one or two sentences; vector: as SVG too (line plots).
    data: rows of the CSV beside it (column -> value); of line plots that give none, what is drawn (data.py)."""

    canvas: Canvas
    caption: str
    vector: bool = False
    data: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Animation:
    """Frames of one size, each shown for its milliseconds, over and over."""

    frames: list[Image.Image]
    milliseconds: list[int]
    caption: str


@dataclass(frozen=True)
class Figure:
    """name: stem of its files. grids: whose records it needs, the first one's command makes them.
    draw: raises NotMade where they are not there."""

    name: str
    title: str
    grids: tuple[str, ...]
    draw: Callable[[Material], Still | Animation]

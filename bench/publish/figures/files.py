"""Figures on disk: PNG, SVG for line plots, GIF for what moves. Whole or not at all; same figure, same bytes."""

from __future__ import annotations

import io
import re
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from PIL import Image

from bench.engine import atomic
from bench.publish.figures.kinds import Animation, Still

PATH, NUMBER = re.compile(rb' d="[^"]*"'), re.compile(rb"\d+\.\d{3,}")
SUFFIXES = (".png", ".svg", ".gif")
COLOURS = 256  # of a palette: a third of the bytes
FEW_COLOURS = 32768  # grey pictures and line plots: a palette of theirs shows no difference
MOVING_COLOURS = 16  # of moving grey pictures: noise hardly compresses, and nobody counts its levels


def save(drawn: Still | Animation, folder: Path, name: str) -> list[str]:
    """Write a figure below `folder`; the names of its files, the one to show first."""
    if isinstance(drawn, Animation):
        contents = {f"{name}.gif": _gif(drawn)}
    else:
        contents = {f"{name}.png": _png(drawn.canvas)}
        if drawn.vector:
            contents = {f"{name}.svg": _svg(drawn.canvas), **contents}
    for file, content in contents.items():
        atomic.write_bytes(folder / file, content)
    for suffix in SUFFIXES:  # what an earlier version of the figure may have left
        if f"{name}{suffix}" not in contents:
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
    return list(contents)


def remove(folder: Path, name: str) -> None:
    """Take an earlier drawing away: a figure that cannot be made any more is not shown."""
    for suffix in (*SUFFIXES, ".csv"):
        (folder / f"{name}{suffix}").unlink(missing_ok=True)


def to_image(canvas: Canvas) -> Image.Image:
    """A drawn figure as RGB pixels."""
    agg = FigureCanvasAgg(canvas)
    agg.draw()
    pixels = Image.frombuffer("RGBA", agg.get_width_height(), agg.buffer_rgba(), "raw", "RGBA", 0, 1)
    return pixels.convert("RGB")


def _png(canvas: Canvas) -> bytes:
    image = to_image(canvas)
    if image.getcolors(FEW_COLOURS) is not None:
        image = image.quantize(COLOURS, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _svg(canvas: Canvas) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasSVG(canvas).print_svg(buffer, metadata={"Date": None, "Creator": None})
    return PATH.sub(_rounded, buffer.getvalue())


def _rounded(path: re.Match[bytes]) -> bytes:
    """A path's data with coordinates to a hundredth of a point: half the bytes, the same to any eye."""
    return NUMBER.sub(lambda number: b"%.2f" % float(number[0]), path[0])


def _gif(animation: Animation) -> bytes:
    """One palette for all frames, so that nothing flickers that does not change."""
    frames = animation.frames
    side = Image.new("RGB", (frames[0].width, 3 * frames[0].height))
    for place, frame in enumerate((frames[0], frames[len(frames) // 2], frames[-1])):
        side.paste(frame, (0, place * frame.height))
    few = frames[-1].getcolors(FEW_COLOURS) is not None
    palette = side.quantize(MOVING_COLOURS if few else COLOURS, dither=Image.Dither.NONE)
    palette.putpalette(_with_white(palette.getpalette()))
    first, *rest = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    buffer = io.BytesIO()
    first.save(
        buffer,
        "GIF",
        save_all=True,
        append_images=rest,
        duration=animation.milliseconds,
        loop=0,
        optimize=False,
    )
    return buffer.getvalue()


def _with_white(palette: list[int]) -> list[int]:
    """A palette [r, g, b, r, ...] whose lightest colour, the paper, is white and not nearly so."""
    colours = [palette[place : place + 3] for place in range(0, len(palette), 3)]
    colours[max(range(len(colours)), key=lambda place: sum(colours[place]))] = [255, 255, 255]
    return [value for colour in colours for value in colour]

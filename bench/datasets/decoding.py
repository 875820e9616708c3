"""Reading one picture file as 8-bit RGB, whatever it holds, or one line that names it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.text import one_line

if TYPE_CHECKING:
    from PIL.Image import Image

# EXIF orientation -> Image.Transpose that undoes it.
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
ORIENTATION = 0x0112
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


def read_picture(path: Path, upright: bool = True) -> Image:
    """The picture as RGB, 8 bits a channel; of several frames the first; transparency is dropped, as in torchvision.

    16-bit grey is scaled to 8 bits. upright: turned as its EXIF data say. BenchError, one line with the path, for what
    is damaged, too large, or of a pixel format that has no one range (32-bit integers, floats).
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            rgb = _as_rgb(picture)
            return rgb.transpose(TURNS[turn]) if upright and (turn := _orientation(picture)) in TURNS else rgb
    except MemoryError:
        raise
    except (
        Exception
    ) as error:  # readers of damaged files raise almost anything: SyntaxError, ValueError, zlib.error
        reason = one_line(str(error), 200) or type(error).__name__
        raise BenchError(f"{path} cannot be read as a picture: {reason}") from None


def _as_rgb(picture: Image) -> Image:
    if picture.mode in SIXTEEN_BITS or (picture.mode == "I" and picture.format in ("PNG", "PPM")):
        return _eight_bits(picture).convert("RGB")
    if picture.mode in ("I", "F"):
        kind = "32-bit integers" if picture.mode == "I" else "floats"
        raise ValueError(f"its pixels are {kind}, of no known range; allowed: 8 or 16 bits a channel")
    if picture.mode in ("P", "PA"):  # by way of RGBA: a palette may carry transparency of its own
        picture = picture.convert("RGBA")
    return picture.convert("RGB")


def _orientation(picture: Image) -> int | None:
    try:
        return picture.getexif().get(ORIENTATION)
    except Exception:  # damaged EXIF data do no harm to the pixels
        return None


def _eight_bits(picture: Image) -> Image:
    """Grey values 0..65535 as 0..255; Pillow's own conversion clips at 255 instead."""
    import numpy
    from PIL import Image

    values = numpy.asarray(picture).astype(numpy.uint32)
    return Image.fromarray(((values + 128) // 257).astype(numpy.uint8))

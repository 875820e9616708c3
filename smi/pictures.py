"""Synthetic images for people who look at them: files, a window, a notebook's output."""

from __future__ import annotations

import base64
import io
import sys
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from smi.progress import in_notebook

if TYPE_CHECKING:
    from smi.images import SyntheticImages

MOST = 64  # images in the grid that a notebook shows


def grid(pixels: Tensor, columns: int) -> Tensor:
    """Images [B, C, H, W] in one picture [C, h, w], two white pixels between them."""
    from torchvision.utils import make_grid  # needed by people who look, not by those who invert

    return make_grid(pixels, nrow=columns, padding=2, pad_value=1.0)


def drawn(picture: Tensor) -> Any:
    """[C, h, w] in [0, 1] as a picture of PIL."""
    from torchvision.transforms.functional import to_pil_image

    return to_pil_image(picture if picture.shape[0] in (1, 3) else picture[:1])


def show(picture: Tensor) -> None:
    """In a notebook below the cell, else in the system's own viewer."""
    if in_notebook():
        sys.modules["IPython"].display.display(drawn(picture))
    else:
        drawn(picture).show()


def png(picture: Tensor) -> bytes:
    """[C, h, w] in [0, 1] as the bytes of a PNG file."""
    buffer = io.BytesIO()
    drawn(picture).save(buffer, "PNG")
    return buffer.getvalue()


def save_png(images: SyntheticImages, folder: str | Path, masked: bool) -> list[Path]:
    """One file an image, `<index>_class<target>.png`; the folder is made. Returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pixels = (images.masked() if masked else images.pixels).cpu()
    paths = []
    for index, (picture, target) in enumerate(zip(pixels, images.targets.tolist(), strict=True)):
        paths.append(folder / f"{index:0{len(str(len(images)))}d}_class{target}.png")
        paths[-1].write_bytes(png(picture))
    return paths


def html(images: SyntheticImages) -> str:
    """What they are, in words, and the first of them in a grid."""
    shown = images.select(slice(MOST)).picture().cpu()
    encoded = base64.b64encode(png(shown)).decode("ascii")
    more = f"<br>the first {MOST} of them" if len(images) > MOST else ""
    return f'<p>{escape(repr(images))}{more}</p><img alt="synthetic images" src="data:image/png;base64,{encoded}">'

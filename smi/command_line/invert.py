"""`smi invert`: images from a model's weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import nn

from smi.command_line.models import load
from smi.errors import InvalidFile, InvalidSetting
from smi.images import SyntheticImages
from smi.inversion import QUICK, invert
from smi.quantization.saving import need_free, writing
from smi.recipes import recipe
from smi.stopping import Stopping

PRESETS = ("quick", "paper")
STOPS = (1 / 8, 1 / 4, 1 / 2, 3 / 4)  # of the iterations; .3 of the patches each, 77% in all, as the paper's


def run(options: argparse.Namespace) -> None:
    """Write the images to options.out: .png a picture grid, .safetensors what smi.SyntheticImages.load reads."""
    path = Path(options.out)
    if path.suffix not in (".png", ".safetensors"):
        raise InvalidFile(f"--out is {path.name}; allowed: a name that ends in .png (a grid) or .safetensors")
    need_free(path, options.force)
    images = synthesise(load(options), options)
    with writing(path):
        if path.suffix == ".png":
            from torchvision.utils import save_image

            save_image(images.picture(), path)
        else:
            images.save(path)
    print(f"{path}: {len(images)} images of {' x '.join(map(str, images.pixels.shape[1:]))}")


def synthesise(model: nn.Module, options: argparse.Namespace) -> SyntheticImages:
    """Images by DeepInversion, sparse unless options.dense, with a progress bar on a terminal."""
    wanted = options.iterations
    if wanted not in PRESETS and not wanted.isdecimal():
        raise InvalidSetting(f"--iterations is {wanted!r}; allowed: {', '.join(PRESETS)}, or a whole number")
    of_recipe = recipe("deepinversion")
    length = {"quick": QUICK, "paper": of_recipe.iterations}.get(wanted) or int(wanted)
    stops = sorted({max(1, round(share * length)) for share in STOPS})
    stopping = Stopping(at=tuple(stops), drop=0.3) if not options.dense and length > stops[-1] else None
    return invert(model, options.count, of_recipe, stopping, options.seed, iterations=length)

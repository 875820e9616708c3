"""Images that the user brings: pictures in files, saved SyntheticImages, or a function of an included module.

Whatever brings them, they are checked against the model: size, values in [0, 1], classes. Shapes: B images, C channels,
H x W pixels.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import smi
from bench.datasets.fitting import fit_transform
from bench.datasets.listing import PICTURE_SUFFIXES, pictures_in
from bench.datasets.pictures import FINGERPRINT_LENGTH, PictureFolder
from bench.engine import include
from bench.engine.atomic import sha256_of
from bench.engine.task import Job
from bench.errors import BenchError, MissingData
from smi.errors import SmiError
from smi.vit import adapt, normalisation

BATCH = 64  # pictures that the model looks at at a time
SAVED = ".safetensors"  # of smi.SyntheticImages.save
ALLOWED = "a folder of pictures, or a .safetensors file of saved smi.SyntheticImages"
RETURNS = (
    "smi.SyntheticImages, or pixels float32 [count, C, H, W] in [0, 1], or (pixels, targets int64 [count])"
)


def fingerprint(path: Path, count: int = 0) -> str:
    """Hash of a folder's pictures (names and contents) or of a file of saved images.

    Raises BenchError where there are none, or fewer than `count`."""
    if path.is_file() and path.suffix == SAVED:
        there, digest = smi.SyntheticImages.load(path).count, sha256_of(path)
    else:
        pictures = _pictures(path)
        lines = [f"{file.relative_to(path).as_posix()}\t{sha256_of(file)}\n" for file in pictures]
        there, digest = len(pictures), hashlib.sha256("".join(lines).encode()).hexdigest()
    if there < count:
        raise BenchError(f"{path} holds {there} images; {count} are asked for")
    return digest[:FINGERPRINT_LENGTH]


def from_files(model: nn.Module, data: Mapping[str, Any], job: Job) -> smi.SyntheticImages:
    """As many of the pictures as are asked for: all in their order, or fewer drawn by the seed."""
    settings = job.task.settings
    path = _find(settings["files"], job.sources.files)
    count, generator = settings["count"], torch.Generator().manual_seed(settings["seed"])
    if path.suffix == SAVED:
        saved = smi.SyntheticImages.load(path)
        return _fitting(saved.select(_choose(len(saved), count, generator)), model, data, count, path.name)
    files = _pictures(path)
    pictures = PictureFolder([(file, 0) for file in files], fit_transform(data, crop_pct=1.0))
    pixels = torch.stack([pictures[index][0] for index in _choose(len(files), count, generator).tolist()])
    return _images(pixels, None, model, data, settings, path.name)


def from_function(model: nn.Module, data: Mapping[str, Any], job: Job) -> smi.SyntheticImages:
    """What the user's function(model, count, seed, **options) returns."""
    settings = job.task.settings
    source, count = settings["source"], settings["count"]
    made = include.function(source)(model, count, settings["seed"], **settings["options"])
    if isinstance(made, smi.SyntheticImages):
        return _fitting(made, model, data, count, _named(source))
    pixels, targets = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(pixels, Tensor) or not isinstance(targets, (Tensor, type(None))):
        raise BenchError(f"{_named(source)} returned a {type(made).__name__}; allowed: {RETURNS}")
    return _images(pixels.detach().cpu(), targets, model, data, settings, _named(source))


def check_signature(source: str, options: Mapping[str, Any]) -> None:
    """The function "module:function" takes (model, count, seed, **options). Raises BenchError."""
    function = include.function(source)
    try:
        signature = inspect.signature(function)
        signature.bind(None, 1, 0, **options)
    except (TypeError, ValueError) as error:
        raise BenchError(f"{_named(source)}(model, count, seed, **options): {error}") from None


def _named(source: str) -> str:
    module, _, name = source.partition(":")
    return f"{include.file_of(module)}: {name}"


def _find(digest: str, paths: tuple[Path, ...]) -> Path:
    for path in paths:
        try:
            if fingerprint(path) == digest:
                return path
        except (BenchError, SmiError):
            continue  # another method's, or gone
    raise MissingData("the pictures that the method's `files` named when this was planned are there no more")


def _pictures(folder: Path) -> list[Path]:
    found = sorted(pictures_in(folder)) if folder.is_dir() else []
    if not found:
        suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
        raise BenchError(f"{folder} holds no pictures ({suffixes}); allowed: {ALLOWED}")
    return found


def _choose(there: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.arange(there) if there == count else torch.randperm(there, generator=generator)[:count]


@torch.no_grad()
def _images(
    pixels: Tensor,
    targets: Tensor | None,
    model: nn.Module,
    data: Mapping[str, Any],
    settings: Mapping[str, Any],
    what: str,
) -> smi.SyntheticImages:
    """Pixels as images; without targets, each one's target is the class that the model sees in it."""
    count = settings["count"]
    _check_size(pixels, data, count, what)
    if targets is None:
        mean, std = normalisation(model)
        parts = pixels.split(BATCH)
        targets = torch.cat([model((part.to(mean.device) - mean) / std).argmax(1) for part in parts])
    made = {key: settings[key] for key in ("source", "seed", "count")}
    try:
        images = smi.SyntheticImages(pixels, targets.cpu(), None, adapt(model).patch_size, made)
    except SmiError as error:
        raise BenchError(f"{what}: {error}") from None
    return _fitting(images, model, data, count, what)


def _check_size(pixels: Tensor, data: Mapping[str, Any], count: int, what: str) -> None:
    wanted = [count, *data["input_size"]]
    if list(pixels.shape) != wanted or pixels.dtype != torch.float32:
        raise BenchError(
            f"{what}: pixels {pixels.dtype} {list(pixels.shape)}; allowed: torch.float32 {wanted}"
        )


def _fitting(
    images: smi.SyntheticImages, model: nn.Module, data: Mapping[str, Any], count: int, what: str
) -> smi.SyntheticImages:
    """Images that are what the model takes, and as many as were asked for. Raises BenchError."""
    tokens = adapt(model)
    _check_size(images.pixels, data, count, what)
    if not 0 <= int(images.targets.min()) <= int(images.targets.max()) < tokens.classes:
        raise BenchError(f"{what}: targets outside the model's classes; allowed: 0 to {tokens.classes - 1}")
    if images.kept is not None and tuple(images.patch_size) != tuple(tokens.patch_size):
        sizes = f"{list(images.patch_size)} pixels; allowed: {list(tokens.patch_size)}"
        raise BenchError(f"{what}: patches of {sizes}")
    return images

"""`smi quantize`: from weights to a file of integers, and what that file is worth.

Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from smi.command_line import export, invert, pictures
from smi.command_line.models import load
from smi.errors import InvalidFile, InvalidSetting
from smi.images import SyntheticImages
from smi.quantization.calibration import quantize
from smi.quantization.deployment.export import need_onnx
from smi.quantization.float_file import export_float
from smi.quantization.model import QuantizedViT
from smi.quantization.saving import need_free
from smi.vit import normalisation

Answers = Callable[[Tensor], Tensor]
BATCH, TURNS = 16, 15


def run(options: argparse.Namespace) -> None:
    """Write options.out (.onnx or .safetensors), then print steps, size, agreement and, of an ONNX file, speed."""
    path, bits = Path(options.out), re.fullmatch(r"W([2-8])/A([2-8])", options.bits)
    if bits is None:
        raise InvalidSetting(f"--bits is {options.bits!r}; allowed: W2/A2 to W8/A8, e.g. W8/A8 or W4/A8")
    if path.suffix not in (".onnx", ".safetensors"):
        raise InvalidFile(f"--out is {path.name}; allowed: a name that ends in .onnx or .safetensors")
    if path.suffix == ".onnx":
        need_onnx()
    need_free(path, options.force)
    seconds: dict[str, float] = {}
    with _timed(seconds, "weights"):
        model = load(options)
        data = pictures.open_folder(options.data, model) if options.data else None
    with _timed(seconds, "inversion"):
        images = invert.synthesise(model, options)
    with _timed(seconds, "calibration"):
        small = quantize(model, images, int(bits[1]), int(bits[2]), quantizer=options.quantizer)
    with _timed(seconds, "file"):
        if path.suffix == ".onnx":
            export.onnx(small, options)
        else:
            small.save(path, overwrite=options.force)
    print("seconds         " + ", ".join(f"{name} {spent:.1f}" for name, spent in seconds.items()))
    whole = 4 * sum(one.numel() for one in model.parameters())
    size = sum(one.stat().st_size for one in (path, Path(f"{path}.data")) if one.exists())
    print(f"size            {size / 1e6:.2f} MB, {size / whole:.2f} of fp32's {whole / 1e6:.2f} MB")
    answers = _answers(path, small, options)
    _agreement(model, answers, images)
    if data is not None:
        pictures.compare(model, answers, data)
    if path.suffix == ".onnx":
        _speed(model, path, options)


def _answers(path: Path, small: QuantizedViT, options: argparse.Namespace) -> Answers:
    """Normalised images -> logits of what was written."""
    if path.suffix != ".onnx":
        return small
    from smi.quantization.deployment.runtime import OnnxViT

    run, (mean, std) = OnnxViT(path, options.threads), normalisation(small)
    return (lambda x: run(x * std + mean)) if options.preprocess else run


@torch.no_grad()
def _agreement(model: nn.Module, answers: Answers, images: SyntheticImages) -> None:
    mean, std = normalisation(model)
    same, error, norm = 0, 0.0, 0.0
    for part in ((images.pixels - mean) / std).split(BATCH):
        exact, ours = model(part), answers(part)
        same += int((exact.argmax(1) == ours.argmax(1)).sum())
        error, norm = error + float((ours - exact).square().sum()), norm + float(exact.square().sum())
    share = f"{100 * same / len(images):.1f}% of {len(images)}"
    print(
        f"agreement       {share} inverted images, logits {100 * (error / norm) ** 0.5:.2f}% from full precision"
    )


def _speed(model: nn.Module, path: Path, options: argparse.Namespace) -> None:
    """Medians over turns, batch 1: the file and the same model in float32, in one onnxruntime."""
    from smi.quantization.deployment.runtime import session, take_turns

    with tempfile.TemporaryDirectory() as folder:
        export_float(model, Path(folder) / "float.onnx")
        files = {"ours": path, "plain": Path(folder) / "float.onnx"}
        sessions = {name: session(file, options.threads) for name, file in files.items()}
        image = torch.rand(1, *sessions["ours"].get_inputs()[0].shape[1:]).numpy()
        runs = {
            name: partial(one.run, None, {one.get_inputs()[0].name: image}) for name, one in sessions.items()
        }
        spent = take_turns(runs, TURNS)
    ours, plain = (statistics.median(spent[name]) for name in ("ours", "plain"))
    print(
        f"speed           {ours:.2f} ms an image, fp32 {plain:.2f} ms ({plain / ours:.2f}x), onnxruntime, batch 1"
    )


class _timed:
    """Adds the seconds that it was open."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self.seconds, self.name = seconds, name

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.name] = time.perf_counter() - self.began

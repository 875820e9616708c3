"""`smi show`: what a file of smi holds."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from smi.errors import InvalidFile
from smi.files import load_tensors
from smi.images import SyntheticImages
from smi.quantization.loading import load_quantized
from smi.quantization.saving import FORMAT


def run(options: argparse.Namespace) -> None:
    """Print what options.file holds."""
    path = Path(options.file)
    if path.suffix == ".onnx":
        from smi.quantization.deployment.runtime import describe

        about = describe(path)
        _head(path)
        if about["format"] == FORMAT:
            _quantized(about)
            floats = about["products_in_float"]
            print(f"profile         {about['profile']}, weights stored as {about['pack']}, opset 21")
            print(f"products        {about['products']} quantized, {len(floats)} of them in float")
            for why in sorted(set(floats.values())):
                print(f"  in float      {why}")
        return
    _, about = load_tensors(path, InvalidFile)
    if about.get("format") != FORMAT:
        images = SyntheticImages.load(path)
        _head(path)
        kept = "all" if images.kept is None else str(images.kept.shape[1])
        print(f"images          {len(images)} of {list(images.pixels.shape[1:])}, {kept} patches of each")
        return
    small = load_quantized(path)
    _head(path)
    _quantized(about)
    print(f"\n{'place':<32}{'least':>12}{'greatest':>12}{'scale':>12}{'zero':>7}")
    for name, one in small.activation_quantizers():
        print(f"{name:<32}{_number(one.low)}{_number(one.high)}{_number(one.scale)}{float(one.zero):>7.4g}")


def _head(path: Path) -> None:
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def _number(value: torch.Tensor) -> str:
    return f"{float(value):>12.4g}"


def _quantized(about: Mapping[str, Any]) -> None:
    of, made = about["architecture"], about["calibration"]
    tokens = (
        "x".join(map(str, of["image_size"])) + " pixels in patches of " + "x".join(map(str, of["patch_size"]))
    )
    print(
        f"model           {of['kind']}, width {of['width']}, {of['depth']} blocks, {tokens}, {of['classes']} classes"
    )
    print(
        f"bits            W{about['weight_bits']}/A{about['activation_bits']}, quantizer {about['quantizer']['name']}"
    )
    mean, std = (", ".join(f"{one:.6g}" for one in about["normalisation"][name]) for name in ("mean", "std"))
    print(f"normalisation   mean {mean}; std {std}")
    if made:
        kept, patches = made["patches_of_each"]
        print(f"calibrated on   {made['images']} images, {kept} of {patches} patches of each")
        print(f"  made by       {json.dumps(made['made'], sort_keys=True)[:400]}")
    print(f"versions        {', '.join(f'{name} {one}' for name, one in about['versions'].items())}")

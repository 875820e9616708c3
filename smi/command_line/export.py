"""`smi export`: an ONNX file from a saved quantized model."""

from __future__ import annotations

import argparse

from smi.quantization.loading import load_quantized
from smi.quantization.model import QuantizedViT


def run(options: argparse.Namespace) -> None:
    """Write options.out from options.file."""
    onnx(load_quantized(options.file), options)


def onnx(small: QuantizedViT, options: argparse.Namespace) -> None:
    """Write options.out and say in one line what it holds."""
    written = small.export(
        options.out,
        options.profile,
        pack=options.pack,
        preprocess=options.preprocess,
        reduce_range=options.reduce_range,
        overwrite=options.force,
    )
    integers, floats = len(written.integer), len(written.in_float)
    print(
        f"{written.path}: {written.bytes / 1e6:.2f} MB, profile {options.profile}, {integers} integer matrix products"
        + (f", {floats} quantized ones in float" if floats else "")
    )

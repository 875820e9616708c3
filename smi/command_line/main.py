"""Reads the arguments of `smi` and runs the command. Bad input is one line and exit code 2."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from smi.errors import Interrupted, SmiError

BAD_INPUT, STOPPED = 2, 130
COMMANDS = {  # name -> (module with `run`, what it does)
    "quantize": ("quantize", "weights -> sparse inversion -> calibration -> a file with integers"),
    "invert": ("invert", "images from a model's weights, as a picture grid or a file"),
    "export": ("export", "an ONNX file from a saved quantized model"),
    "show": ("show", "what a file holds: model, ranges, size"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, 2 for bad input, 130 where it was told to stop."""
    options = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _one_line
            import_module(f"smi.command_line.{COMMANDS[options.command][0]}").run(options)
    except SmiError as error:
        print(f"smi: error: {error}", file=sys.stderr)
        return BAD_INPUT
    except (Interrupted, KeyboardInterrupt):
        print("smi: stopped; nothing was written", file=sys.stderr)
        return STOPPED
    return 0


def _one_line(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"smi: note: {' '.join(str(message).split())}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "smi", description="Data-free inversion and quantization of Vision Transformers."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    made = {
        name: commands.add_parser(name, help=text, description=text) for name, (_, text) in COMMANDS.items()
    }
    for name in ("quantize", "invert"):
        _model(made[name])
        _inversion(made[name])
    for name in ("quantize", "invert", "export"):
        made[name].add_argument(
            "--out", required=True, metavar="FILE", help="what to write; the suffix says what"
        )
        made[name].add_argument("--force", action="store_true", help="write over a file that is there")
    made["quantize"].add_argument(
        "--bits", default="W8/A8", help="of weights and activations, 2 to 8 (W8/A8)"
    )
    made["quantize"].add_argument(
        "--quantizer", default="mse_inputs", help="a name of smi.QUANTIZERS (mse_inputs)"
    )
    made["quantize"].add_argument(
        "--data", metavar="FOLDER", help="pictures in class folders, to try the file on"
    )
    for name in ("quantize", "export"):
        one = made[name]
        one.add_argument(
            "--profile", default="integer", help="integer (default): the inputs of products; exact: all"
        )
        one.add_argument(
            "--pack", default="int8", help="int8 (default); int4: half the file, multiplied in float"
        )
        one.add_argument("--preprocess", action="store_true", help="the file takes pixels in [0, 1]")
        one.add_argument(
            "--reduce-range", action="store_true", help="8-bit weights to 7 bits: for x86 without VNNI"
        )
    made["export"].add_argument(
        "file", metavar="FILE", help="what `smi quantize --out vit.safetensors` wrote"
    )
    made["show"].add_argument("file", metavar="FILE", help="a .safetensors or .onnx file of smi")
    return parser


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="a timm name, or a folder as transformers saves models"
    )
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="weights of a timm model; else its pretrained ones"
    )
    parser.add_argument("--random-weights", action="store_true", help="no weights: to try speed and size")
    parser.add_argument("--threads", type=int, default=0, help="of torch and onnxruntime (their own choice)")


def _inversion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=32, help="images to invert (32)")
    parser.add_argument("--iterations", default="quick", help="quick (default), paper, or a number")
    parser.add_argument("--dense", action="store_true", help="no patch is stopped")
    parser.add_argument("--seed", type=int, default=0)

"""The parser of every command line of `bench`: what is wrong comes out as one line, like any other bad input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from bench.engine import include
from bench.engine.failures import is_a
from bench.errors import BenchError

BAD_INPUT = 2  # exit code


class Parser(argparse.ArgumentParser):
    """argparse without guessed abbreviations, raising BenchError where it would print its usage and exit."""

    def __init__(self, module: str, description: str) -> None:
        super().__init__(prog=f"python -m {module}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise BenchError(f"{message} (--help lists the options)")

    def add_include(self) -> None:
        """The option that names folders of the user's own modules (bench/register.py)."""
        self.add_argument(
            "--include",
            type=place,
            action="append",
            default=[],
            metavar="FOLDER",
            help="folder of your own Python modules to import, e.g. with a score (docs/adding.md); repeatable",
        )

    def add_places(self) -> None:
        """The options that say where work, tables, data and weights lie."""
        add = self.add_argument
        add(
            "--store",
            type=place,
            default=Path("runs"),
            metavar="DIR",
            help="where work is kept (default: runs)",
        )
        add(
            "--results",
            type=place,
            default=Path("results"),
            metavar="DIR",
            help="where tables go (default: results)",
        )
        add("--imagenet", type=place, metavar="DIR", help="ImageNet's folder, short for --data imagenet=DIR")
        add("--data", action="append", default=[], metavar="NAME=DIR", help="folder of a data set")
        add(
            "--checkpoints",
            type=place,
            metavar="DIR",
            help="local weights: <timm model name>.safetensors or .pth",
        )
        add(
            "--retrain",
            action="store_true",
            help="train our own models even where their weights come with the project",
        )


def place(text: str) -> Path:
    """A path as an option gives it: `~` is the home folder wherever it stands, which not every shell sees to."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty (a variable that is not set?)")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text}: there is no such home folder") from None


def exit_code(main: Callable[[], int]) -> int:
    """What `main` returns; for a BenchError its line on standard error, and 2."""
    try:
        return main()
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except Exception as error:
        line = include.explained(error) or (str(error) if is_a(error, "smi.errors", "SmiError") else None)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return BAD_INPUT

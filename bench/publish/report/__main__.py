"""`python -m bench report [results/digits]`: write the results folder's report.html."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cli.arguments import Parser, exit_code, place
from bench.engine import atomic, include
from bench.errors import StoreError
from bench.grid import DEFAULT_SCALE

NAME = "report.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = Parser("bench report", "Make one HTML page of a results folder; it needs no network.")
    default = Path("results") / DEFAULT_SCALE
    parser.add_argument(
        "folder", nargs="?", type=place, default=default, help=f"a scale's results (default: {default})"
    )
    parser.add_include()
    options = parser.parse_args(arguments)
    include.load(options.include)

    from bench.publish import report  # markdown and matplotlib, which a bad command line need not wait for

    text = report.build(options.folder)
    path = options.folder / NAME
    try:
        atomic.write_text(path, text)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
    print(f"{path} ({path.stat().st_size / 1e6:.2f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))

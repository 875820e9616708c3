"""`python -m bench tables [--results DIR]`: make every table and the index again from the published records."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench import publish
from bench.cli.arguments import Parser, exit_code, place
from bench.engine import include
from bench.errors import BenchError, StoreError


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0; raises BenchError."""
    parser = Parser("bench tables", "Make the tables again.")
    parser.add_argument(
        "--results",
        type=place,
        default=Path("results"),
        metavar="DIR",
        help="folder of tables (default: results)",
    )
    parser.add_include()
    options = parser.parse_args(arguments)
    include.load(options.include)
    results = options.results
    try:
        written = publish.render_again(results)
        if not written:
            raise BenchError(f"{results} holds no published grids (<scale>/records/<grid>.jsonl)")
        print(*written, sep="\n")
    except OSError as error:
        raise StoreError(f"{results} cannot be written: {error.strerror or error}") from error
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))

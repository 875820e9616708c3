"""`python -m bench.tables [--results DIR]`: make every table and the index again from the published records."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import tables
from bench.errors import BenchError
from bench.tables import index, published


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description="Make the tables again.")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of tables (default: results)"
    )
    options = parser.parse_args(arguments)
    try:
        sheets = published.sheets(options.results)
        if not sheets:
            raise BenchError(f"{options.results} holds no published grids (<scale>/records/<grid>.json)")
        for sheet in sheets:
            print(tables.write(sheet, options.results))
        print(index.write(options.results))
    except (BenchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

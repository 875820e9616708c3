"""`python -m bench figures [--scale digits] [--store runs] [--results results]`: draw every figure again."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.cli.arguments import Parser, exit_code, place
from bench.engine import include
from bench.errors import BenchError, StoreError
from bench.grid import DEFAULT_SCALE, load


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0; figures that cannot be made are listed with what would make them."""
    parser = Parser(
        "bench figures", "Draw figures from what grids have left: records and images. Runs nothing."
    )
    add = parser.add_argument
    add("--scale", default=DEFAULT_SCALE, help=f"whose figures to draw (default: {DEFAULT_SCALE})")
    add("--grid", type=place, metavar="FILE", help="only the figures that this grid feeds (default: all)")
    add(
        "--store",
        type=place,
        default=Path("runs"),
        metavar="DIR",
        help="where the images are (default: runs)",
    )
    add(
        "--results",
        type=place,
        default=Path("results"),
        metavar="DIR",
        help="records and figures (default: results)",
    )
    parser.add_include()
    options = parser.parse_args(arguments)
    include.load([*options.include, *_folders(options.grid)])

    from bench.publish import figures  # matplotlib and torch, which a bad command line need not wait for
    from bench.publish.figures import material, page

    chosen = figures.feeding(options.grid.stem) if options.grid else figures.all_figures()
    found = material.gather(options.results, options.scale, options.store)
    if not found.sheets:
        raise BenchError(
            f"{options.results}/{options.scale} holds no records to draw from; make some: {found.command('figures')}"
        )
    folder = options.results / options.scale / "figures"
    outcomes = []
    with _errors_in(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for figure in chosen:
        with _errors_in(folder):
            outcomes.append(figures.draw(figure, found, folder))
        print(_line(outcomes[-1], folder), flush=True)
    with _errors_in(folder):
        path = page.write(
            outcomes, folder, found.scale_line, f"python -m bench figures --scale {options.scale}"
        )
    print(path)
    return 0


def _folders(grid: Path | None) -> tuple[Path, ...]:
    """What the grid includes; a name alone, without its file, still says which figures are meant."""
    return load(grid).folders if grid is not None and grid.is_file() else ()


@contextmanager
def _errors_in(folder: Path) -> Iterator[None]:
    """Turn an OSError of the results folder into one line."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror or error}") from error


def _line(outcome: Any, folder: Path) -> str:
    """What was drawn, or why it was not."""
    if outcome.missing:
        return f"not made: {outcome.figure.name}: {outcome.missing}"
    return ", ".join(str(folder / file) for file in outcome.files)


if __name__ == "__main__":
    sys.exit(exit_code(main))

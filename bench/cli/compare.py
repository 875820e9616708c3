"""`python -m bench compare A B`: do two results folders, yours and the published one say, agree?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cli.arguments import Parser, exit_code, place
from bench.engine import atomic
from bench.errors import StoreError
from bench.publish import comparing
from bench.publish.comparing import OUTSIDE, UNTOLD, WITHIN, Comparison, Line
from bench.publish.parts import markdown, mean_std, provenance
from bench.text import plural

DISAGREE = 1  # exit code
SHOWN = ("hardware", "versions", "commit", "date")  # of each side


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 where the folders agree, 1 where a figure lies outside; raises BenchError."""
    parser = Parser("bench compare", "Hold two results folders against each other, cell by cell.")
    parser.add_argument("first", type=place, metavar="A", help="a results folder, e.g. results")
    parser.add_argument("other", type=place, metavar="B", help="another one, e.g. that of a fresh run")
    parser.add_argument("--grid", metavar="NAME", help="of this grid alone, e.g. table3")
    parser.add_argument("--all", action="store_true", help="show the lines that agree, too")
    parser.add_argument("--page", type=place, metavar="FILE.html", help="write it as one HTML page, too")
    options = parser.parse_args(arguments)
    found = comparing.compare(options.first, options.other, options.grid)
    print(text(found, options.all))
    if options.page is not None:
        _write(options.page, found, options.first, options.other)
    return 0 if found.agrees else DISAGREE


def _write(path: Path, found: Comparison, first: Path, other: Path) -> None:
    from bench.publish.report import compared  # jinja2, which the text alone need not wait for

    page = compared.build(found, first, other)
    try:
        atomic.write_text(path, page)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
    print(f"{path} ({path.stat().st_size / 1e6:.2f} MB)")


def text(found: Comparison, everything: bool) -> str:
    """What is said of a comparison, in markdown: the lines that do not agree, or all; both origins; the count."""
    parts = []
    lines = [line for line in found.lines if everything or line.verdict != WITHIN]
    if lines:
        parts.append(markdown([_row(line) for line in lines]))
    for one, other in found.pairs:
        ours, theirs = provenance(one), provenance(other)
        rows = [{"": name, "A": ours.get(name, "-"), "B": theirs.get(name, "-")} for name in SHOWN]
        parts.append(f"{one.scale}/{one.grid}\n\n{markdown(rows)}")
    for side, names in (("A", found.only_first), ("B", found.only_other)):
        if names:
            parts.append(f"only in {side}: {', '.join(names)}")
    if found.missing:
        parts.append(f"finished on one side alone: {plural(found.missing, 'cell')}")
    verdicts = [line.verdict for line in found.lines]
    counted = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in (WITHIN, OUTSIDE, UNTOLD))
    parts.append(f"{plural(len(verdicts), 'figure')}: {counted}")
    return "\n\n".join(parts)


def _row(line: Line) -> dict[str, str]:
    apart, known = line.told_apart
    return {
        "grid": f"{line.scale}/{line.grid}",
        "cell": ", ".join(f"{value}" for _, value in line.cell),
        "figure": line.figure,
        "A": mean_std(list(line.first.values())),
        "B": mean_std(list(line.other.values())),
        "B - A": f"{line.difference:+.3f}",
        "p (Holm)": "-" if line.adjusted is None else f"{line.adjusted:.3f}",
        "models told apart": f"{apart} of {known}" if known else "-",
        "verdict": line.verdict,
    }


if __name__ == "__main__":
    sys.exit(exit_code(main))

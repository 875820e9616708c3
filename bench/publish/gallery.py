"""`python -m bench gallery`: docs/gallery.md, what inverted images look like at every scale that has figures.

Made from what `python -m bench figures` left (figures.json) and from the published sheets; it draws and runs nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.cli.arguments import Parser, exit_code, place
from bench.engine import atomic, include
from bench.errors import BenchError, StoreError
from bench.publish import manifest, scale_notes
from bench.publish.figures import page
from bench.publish.words import code, plain

PAGE = Path("docs") / "gallery.md"
SHOWN = ("looks", "classes", "patch_sizes", "trajectory", "inversion", "kept", "importance")  # in this order
HEAD = """# Gallery

What inverted images look like, by model, recipe and sparsity. Made by {command} from the figures in
[results]({results}); do not edit. No image was picked: where some are shown, they are the first.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0; raises BenchError."""
    parser = Parser(
        "bench gallery", "Make the documents' page of inverted images from the figures that are there."
    )
    add = parser.add_argument
    default = Path("results")
    add("--results", type=place, default=default, metavar="DIR", help="folder of results (default: results)")
    add("--page", type=place, default=PAGE, metavar="FILE", help=f"page to write (default: {PAGE})")
    parser.add_include()
    options = parser.parse_args(arguments)
    include.load(options.include)
    text = build(options.results, options.page.parent)
    try:
        options.page.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(options.page, text)
    except OSError as error:
        raise StoreError(f"{options.page} cannot be written: {error.strerror or error}") from error
    print(options.page)
    return 0


def build(results: Path, beside: Path) -> str:
    """The page, its links seen from the folder `beside`. Raises BenchError where no scale has pictures."""
    scales = sorted(path.parent.parent for path in results.glob(f"*/figures/{page.INDEX}"))
    sections = [text for folder in scales if (text := _section(folder, beside))]
    if not sections:
        raise BenchError(f"{results} holds no figures of images; draw some: python -m bench figures")
    head = HEAD.format(command=code("python -m bench gallery"), results=_link(results, beside))
    return "\n".join([head, *sections])


def _section(folder: Path, beside: Path) -> str:
    """A scale's pictures; "" if none of SHOWN was drawn there."""
    entries = {entry["name"]: entry for entry in page.read(folder / "figures")["figures"] if entry["files"]}
    shown = [entries[name] for name in SHOWN if name in entries]
    if not shown:
        return ""
    sheets = [sheet for sheet in manifest.sheets(folder.parent) if sheet.scale == folder.name]
    parts = [f"## {plain(folder.name.capitalize())}", f"{plain(scale_notes.line(folder.name, *sheets))}."]
    return (
        "\n\n".join([*parts, *(text for entry in shown for text in _picture(entry, folder, beside))]) + "\n"
    )


def _picture(entry: dict, folder: Path, beside: Path) -> Iterator[str]:
    where = _link(folder / "figures" / entry["files"][0], beside)
    yield f"### {plain(entry['title'])}"
    yield f"![{plain(entry['title'])}]({where})"
    data = f" [CSV]({_link(folder / 'figures' / entry['data'], beside)})." if entry.get("data") else ""
    yield f"{plain(entry['caption'])}{data}"


def _link(path: Path, beside: Path) -> str:
    return Path(os.path.relpath(path.resolve(), beside.resolve())).as_posix()


if __name__ == "__main__":
    sys.exit(exit_code(main))

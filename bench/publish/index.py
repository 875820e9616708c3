"""results/README.md: an index, made from what is published, of the tables that are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.engine import atomic
from bench.publish import manifest, scale_notes
from bench.publish.manifest import Sheet
from bench.publish.parts import markdown, provenance
from bench.publish.words import Markup, code, plain

HEAD = """# Results

Made by the commands below; do not edit. Each table names its scale. The records behind a table lie in
`<scale>/records/`; `python -m bench tables` makes every table and page of claims again from them. No sweep ever
reads them.
"""


def write(results: Path, found: Sequence[Sheet], judged: Sequence[Path]) -> Path:
    """Write the index of the sheets found; returns its path. judged: pages of claims (bench/publish/claims/page.py)."""
    rows = []
    for sheet in found:
        origin = provenance(sheet)
        rows.append(
            {
                "table": Markup(
                    f"[{sheet.grid}]({sheet.scale}/{manifest.file_name(sheet)}): {plain(sheet.title)}"
                ),
                "scale": sheet.scale,
                "device": origin["hardware"],
                "date": origin["date"],
                "commit": origin["commit"],
                "command": code(origin["command"]),
            }
        )
    path = results / "README.md"
    scales = "".join(f"- `{scale}`: {subjects}\n" for scale, subjects in _subjects(found).items())
    links = [f"[{page.parent.name}]({page.relative_to(results).as_posix()})" for page in judged]
    claims = f"The paper's claims, one by one: {', '.join(links)}.\n" if links else ""
    table = markdown(rows) if rows else "Nothing has been run."
    atomic.write_text(
        path, "\n".join([HEAD, *([scales] if scales else []), *([claims] if claims else []), table, ""])
    )
    return path


def _subjects(found: Sequence[Sheet]) -> dict[str, str]:
    """Scale -> what is inverted there and its data, in the words of its grids, each said once."""
    said: dict[str, dict[str, None]] = {}
    for sheet in found:
        said.setdefault(sheet.scale, {})[scale_notes.subject(sheet)] = None
    return {scale: "; ".join(subjects) for scale, subjects in said.items()}

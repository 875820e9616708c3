"""results/README.md: an index, made from what is published, of the tables that are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.engine import atomic
from bench.publish import manifest
from bench.publish.manifest import Sheet
from bench.publish.parts import markdown, provenance

HEAD = """# Results

Made by the commands below; do not edit. Each table names its scale: `digits` is the embedded one (a micro ViT on
scikit-learn's digits), `cifar` the middle one (small ViTs on CIFAR-10), `paper` the paper's (DeiT on ImageNet and
CIFAR). The records behind a table lie in `<scale>/records/`; `python -m bench tables` makes every table and page
of claims again from them. No sweep ever reads them.
"""


def write(results: Path, found: Sequence[Sheet], judged: Sequence[Path]) -> Path:
    """Write the index of the sheets found; returns its path. judged: pages of claims (bench/publish/claims.py)."""
    rows = []
    for sheet in found:
        origin = provenance(sheet)
        rows.append(
            {
                "table": f"[{sheet.grid}]({sheet.scale}/{manifest.file_name(sheet)}): {sheet.title}",
                "scale": sheet.scale,
                "device": origin["hardware"],
                "date": origin["date"],
                "commit": origin["commit"],
                "command": origin["command"],
            }
        )
    path = results / "README.md"
    links = [f"[{page.parent.name}]({page.relative_to(results).as_posix()})" for page in judged]
    claims = f"\nThe paper's claims, one by one: {', '.join(links)}.\n" if links else ""
    atomic.write_text(
        path, HEAD + claims + "\n" + (markdown(rows) if rows else "Nothing has been run.") + "\n"
    )
    return path

"""The report: one self-contained HTML page of a results folder, `python -m bench report results/digits`.

It shows what the folder holds and nothing else: what holds of the paper's claims (verdict.py), the tables to sort and
filter (bench/publish/summary.py), the figures (as data URIs), and, folded, every table, what is missing, the settings,
where everything was made, and links to the records. It needs no network and no store; its one script sorts, filters and
unfolds, and the page is whole without it.
"""

from __future__ import annotations

from pathlib import Path

from bench.publish.report.contents import collect
from bench.publish.report.page import render


def build(folder: Path) -> str:
    """The page for results/<scale>. Raises BenchError where there is nothing to show, or where it is damaged."""
    return render(collect(folder))

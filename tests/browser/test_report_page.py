"""The report in a real browser: it opens from disk alone, whole, at a desktop's and at a phone's width, and prints."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_results

from bench.engine.provenance import ROOT
from bench.publish.figures.__main__ import main as draw
from bench.publish.report.__main__ import main as report

COMMITTED = ROOT / "results" / "digits"
WIDE = (
    "| "
    + " | ".join(f"column {n}" for n in range(40))
    + " |\n"
    + "|---" * 40
    + "|\n"
    + "| cell " * 40
    + "|\n"
)
HOSTILE = f"# A table wider than any screen\n\n{WIDE}\n\n<script>console.error('ran')</script>\n\n{'unbroken' * 60}\n"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small sweep, with a table beside it that is too wide and carries a script."""
    store, results = small_results.make(tmp_path_factory.mktemp("suite"))
    (results / "digits" / "wide.md").write_text(HOSTILE, encoding="utf-8")
    assert draw(["--store", str(store), "--results", str(results)]) == 0
    assert report([str(results / "digits")]) == 0
    return results / "digits" / "report.html"


def check(browser, page: Path) -> None:
    """What must hold for any report, in whichever window."""
    browser.open(page)
    assert browser.messages() == []
    pictures = browser.run(
        "[...document.images].map(i => [i.alt, i.complete && i.naturalWidth > 0 && !!i.alt])"
    )
    assert pictures and [alt for alt, loaded in pictures if not loaded] == []
    assert (
        browser.run(
            "performance.getEntriesByType('resource').filter(r => !r.name.startsWith('data:')).length"
        )
        == 0
    )
    width = browser.run("document.documentElement.clientWidth")
    assert browser.run("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    outside = "[...document.querySelectorAll('table, pre, img')].filter(e => !e.closest('.scroll')).length"
    assert browser.run(outside) == 0
    boxes = browser.run("[...document.querySelectorAll('.scroll')].map(e => e.getBoundingClientRect().right)")
    assert max(boxes) <= width + 1
    small = "[...document.querySelectorAll('p, li, td')].filter(e => parseFloat(getComputedStyle(e).fontSize) < 12)"
    assert browser.run(f"{small}.length") == 0, "text too small to read"
    broken = (
        "[...document.querySelectorAll('a[href^=\"#\"]')].filter(a => !document.querySelector(a.hash)).length"
    )
    assert browser.run(broken) == 0
    assert browser.pdf().startswith(b"%PDF")


def test_a_fresh_report_opens_whole(browser, fresh):
    check(browser, fresh)
    box = "document.querySelector('#table-wide .scroll')"
    assert browser.run(f"({box}.scrollLeft = 50, {box}.scrollLeft)") > 0, "a wide table scrolls inside itself"
    assert browser.run("document.title").endswith("digits scale")


def test_the_committed_report_opens_whole_and_is_small(browser):
    page = COMMITTED / "report.html"
    if not page.exists():
        pytest.fail(f"{page} is not there; make it: python -m bench report", pytrace=False)
    check(browser, page)
    assert page.stat().st_size < 2_000_000

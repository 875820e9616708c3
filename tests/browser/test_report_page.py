"""The report in a real browser: it opens from disk alone, whole, at a desktop's and at a phone's width, and prints."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_results
from browser.pages import CONTRAST, ENTER, TAB, check

from bench.engine.provenance import ROOT
from bench.publish.figures.__main__ import main as draw
from bench.publish.report.__main__ import main as report

COMMITTED = [ROOT / "results" / scale / "report.html" for scale in ("digits", "cifar")]
MOST = 3_000_000  # bytes
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


def test_a_fresh_report_opens_whole(browser, fresh):
    check(browser, fresh)
    box = "document.querySelector('#table-wide .scroll')"
    assert browser.run(f"({box}.scrollLeft = 50, {box}.scrollLeft)") > 0, "a wide table scrolls inside itself"
    assert browser.run("document.title").endswith("digits scale")


@pytest.mark.parametrize("page", COMMITTED, ids=lambda page: page.parent.name)
def test_the_committed_reports_open_whole_and_are_small(browser, page):
    if not page.exists():
        pytest.fail(f"{page} is not there; make it: python -m bench report {page.parent}", pytrace=False)
    check(browser, page)
    assert page.stat().st_size < MOST


TABLE = "document.querySelector('#tables table')"
SHOWN = f"[...{TABLE}.tBodies[0].rows].filter(row => !row.hidden)"


def column(browser, name: str) -> list[str]:
    """What the rows that are shown say in a column of the main table."""
    place = f"[...{TABLE}.tHead.rows[0].cells].findIndex(head => head.innerText.trim().startsWith('{name}'))"
    return browser.run(f"{SHOWN}.map(row => row.cells[{place}].innerText.trim())")


def head(name: str) -> str:
    return f"[...{TABLE}.tHead.rows[0].cells].find(head => head.innerText.trim().startsWith('{name}'))"


def test_a_click_sorts_the_main_table_by_number_and_another_turns_it(browser):
    browser.open(COMMITTED[1])
    for expected in ("ascending", "descending"):
        browser.run(f"{head('lost')}.querySelector('button').click()")
        assert browser.run(f"{head('lost')}.getAttribute('aria-sort')") == expected
        cells = column(browser, "lost")
        numbers = [float(cell) for cell in cells if cell != "-"]
        assert len(numbers) > 10 and numbers == sorted(numbers, reverse=expected == "descending")
        assert all(cell == "-" for cell in cells[len(numbers) :]), "rows without a figure stand last"
    assert browser.run("document.querySelectorAll('#tables table [aria-sort]').length") == 1
    assert browser.messages() == []


def test_filters_narrow_the_rows_and_say_how_many_are_left(browser):
    browser.open(COMMITTED[1])
    every = len(column(browser, "bits"))
    for axis, value in (("bits", "W4/A8"), ("method", "Gaussian noise")):
        browser.run(f"document.querySelector('#tables input[name={axis}][value=\"{value}\"]').click()")
    assert set(column(browser, "bits")) == {"W4/A8"}
    assert set(column(browser, "method")) == {"Gaussian noise"}
    left = len(column(browser, "bits"))
    assert f"{left} of {every}" in browser.run("document.querySelector('#tables output').innerText")
    browser.run("document.querySelector('#tables .all').click()")
    assert len(column(browser, "bits")) == every and browser.messages() == []


def test_what_is_folded_unfolds_by_a_click_and_by_a_link(browser):
    browser.open(COMMITTED[1])
    rule = "document.getElementById('table-README')"
    assert browser.run("[...document.querySelectorAll('#rest details')].filter(one => one.open).length") == 0
    browser.run("document.querySelector('a[href=\"#table-README\"]').click()")
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert browser.run(f"{rule}.open")
    browser.run(f"{rule}.querySelector('summary').click()")
    assert not browser.run(f"{rule}.open")


def test_all_of_it_unfolded_does_not_scroll_sideways(browser):
    width = browser.run("innerWidth")
    for page in COMMITTED:
        browser.open(page)
        browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert browser.run("document.documentElement.scrollWidth") <= width
        wide = "!e.closest('.scroll, svg, .skip') && e.getBoundingClientRect().right > innerWidth + 1"
        found = (
            f"[...document.querySelectorAll('body *')].filter(e => {wide}).map(e => e.outerHTML.slice(0, 80))"
        )
        assert browser.run(found) == []


def test_the_keyboard_alone_sorts_filters_and_unfolds(browser):
    browser.open(COMMITTED[1])
    button = f"{head('lost')}.querySelector('button')"
    browser.tab_to(button)
    assert browser.run(f"getComputedStyle({button}).outlineStyle") == "solid", "the focus is seen"
    for expected in ("ascending", "descending"):
        browser.press(ENTER)
        assert browser.run(f"{head('lost')}.getAttribute('aria-sort')") == expected
        assert browser.run(f"document.activeElement === {button}"), "sorting leaves the focus where it was"
    numbers = [float(cell) for cell in column(browser, "lost") if cell != "-"]
    assert len(numbers) > 10 and numbers == sorted(numbers, reverse=True)
    folded = "document.getElementById('table-README')"
    browser.run(f"{folded}.previousElementSibling.querySelector('summary').focus()")
    browser.tab_to(f"{folded}.querySelector('summary')")
    for opened, key in ((True, ENTER), (False, " ")):
        browser.press(key)
        assert browser.run(f"{folded}.open") is opened
    browser.open(COMMITTED[1])
    browser.press(TAB)
    assert browser.run("document.activeElement.className") == "skip"
    browser.press(ENTER)
    assert browser.run("location.hash") == "#verdict" and browser.messages() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it_in_either_colour_scheme(browser, scheme):
    browser.prefer(scheme)
    browser.open(COMMITTED[1])
    ratios = browser.run(f"({CONTRAST})()")
    assert ratios and [one for one in ratios if one[1] < 4.5] == []

"""The page of two results folders in a real browser: whole, no wider than its window, by mouse and by keyboard."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import published_files
import pytest
from browser.pages import CONTRAST, ENTER, check

from bench.engine.provenance import ROOT
from bench.publish import comparing
from bench.publish.report import compared

RESULTS = ROOT / "results"
ROWS = "[...document.querySelectorAll('#tables tbody tr')].filter(row => !row.hidden)"
SORT = "[...document.querySelectorAll('#tables thead button')].find(one => one.innerText.trim() === 'B - A')"


def _worse(record: dict[str, Any]) -> dict[str, Any]:
    if (record["kind"], record["status"]) != ("quantize", "done") or record["settings"]["weight_bits"] != 4:
        return record
    record["metrics"]["top1"] -= 6 + 0.01 * int(record["key"][:2], 16) / 255
    return {**record, "device": "<script>"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published digits beside a copy in which W4 has lost six points on a machine of another name."""
    folder = tmp_path_factory.mktemp("compared")
    shutil.copytree(RESULTS / "digits" / "records", folder / "<b>mine" / "digits" / "records")
    for path in (folder / "<b>mine").rglob("*.jsonl"):
        published_files.change_records(path, _worse)
    found = comparing.compare(RESULTS, folder / "<b>mine")
    made = folder / "page.html"
    made.write_text(compared.build(found, RESULTS, folder / "<b>mine"), encoding="utf-8")
    return made


def test_it_opens_whole_and_says_first_what_lies_outside(browser, page):
    check(browser, page, with_pictures=False)
    said = browser.run("document.querySelector('.said').innerText")
    assert said.startswith("They do not agree: ") and "B is <b>mine." in browser.run(
        "document.body.innerText"
    )
    outside = int(browser.run("document.querySelector('.counts .fails .number').innerText"))
    verdicts = browser.run(f"{ROWS}.map(row => row.querySelector('td').innerText.trim())")
    assert 0 < outside == verdicts.count("outside") and verdicts[:outside] == ["outside"] * outside
    assert browser.run("document.querySelector('#origins details').open")
    assert "<script> (cpu)" in browser.run("document.querySelector('#origins table').innerText")


def test_rows_are_sorted_filtered_and_unfolded_by_the_keyboard(browser, page):
    browser.open(page)
    browser.run("document.querySelector('.filters details').open = false")
    browser.tab_to(SORT)
    browser.press(ENTER)
    place = f"[...{SORT}.closest('tr').cells].indexOf({SORT}.closest('th'))"
    differences = [float(one) for one in browser.run(f"{ROWS}.map(row => row.cells[{place}].innerText)")]
    assert len(differences) > 20 and differences == sorted(differences) and differences[0] < -5
    browser.open(page)
    browser.run("document.querySelector('.filters details').open = true")
    box = "document.querySelector('input[name=verdict][value=outside]')"
    browser.tab_to(box)
    browser.press(" ")
    assert browser.run(f"{box}.checked") and 0 < len(browser.run(f"{ROWS}.map(() => 1)")) < len(differences)
    second = "document.querySelectorAll('#origins summary')[1]"
    browser.run("document.querySelector('#origins summary').focus()")
    browser.tab_to(second)
    browser.press(ENTER)
    assert browser.run(f"{second}.parentElement.open") and browser.messages() == []
    assert browser.run("document.documentElement.scrollWidth") <= browser.run("innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_its_text_stands_out_in_either_colour_scheme(browser, page, scheme):
    browser.prefer(scheme)
    browser.open(page)
    ratios = browser.run(f"({CONTRAST})()")
    assert ratios and [one for one in ratios if one[1] < 4.5] == []

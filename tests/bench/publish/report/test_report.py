"""The report page: what it escapes, what it refuses, and that its HTML is whole."""

from __future__ import annotations

import itertools
from html.parser import HTMLParser
from pathlib import Path

import published_files
import pytest
from PIL import Image

from bench.cli.arguments import exit_code
from bench.publish.report import build
from bench.publish.report.__main__ import main

VOID = {"meta", "link", "img", "br", "hr"}
TABLE = """# Table 3, digits scale

| model | W4/A8 top-1 |
|---|---|
| digits_vit | 97.2 ± 0.3 (3) |
| <script>alert(1)</script> | [away](javascript:alert) |

<img src=x onerror=alert(1)>

## How this was made

- command: `python -m bench.sweep`
"""


class Balance(HTMLParser):
    """Checks that every tag is closed by its own end tag; collects tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_pictures_beside_a_page_are_part_of_the_report_and_others_only_named(folder):
    Image.new("RGB", (4, 4)).save(folder / "plot.png")
    (folder / "README.md").write_text(
        "# C\n\n![one](plot.png) ![two](https://a.example/b.png) ![3](../x.png)\n"
    )
    page = Balance(build(folder))
    sources = {attributes.get("alt"): attributes["src"] for tag, attributes in page.tags if tag == "img"}
    assert set(sources) == {"one"} and sources["one"].startswith("data:image/png;base64,")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A results folder with one table and nothing else."""
    folder = tmp_path / "results" / "digits"
    folder.mkdir(parents=True)
    (folder / "table3.md").write_text(TABLE, encoding="utf-8")
    return folder


def publish_sheet(folder: Path, changed: dict) -> None:
    """Beside the table, the sheet of its grid, nothing run."""
    (folder / "records").mkdir()
    sheet = {
        "grid": "table3",
        "title": "T",
        "experiment": "quantization",
        "scale": folder.name,
        "table": "table3",
    }
    sheet |= {
        "about": {},
        "command": "c",
        "methods": {},
        "settings": {},
        "paper": {},
    }
    sheet |= {name: value for name, value in changed.items() if name not in ("cells", "records")}
    cells, records = changed.get("cells", []), changed.get("records", [])
    sheet |= {"cells": len(cells), "records": len(records)}
    published_files.write(folder / "records" / "table3.jsonl", sheet, cells, records)


def test_markup_in_a_table_stays_text(folder):
    page = Balance(build(folder))
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 1 and "img" not in names  # the page's own
    assert not [
        attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)
    ]
    assert not [a for _, a in page.tags if (a.get("href") or "").startswith("javascript")]


def test_tables_lie_in_boxes_that_scroll_and_headings_go_down_one_step_at_a_time(folder):
    page = Balance(build(folder))
    boxed = [
        page.tags[place - 1][1].get("class") for place, (tag, _) in enumerate(page.tags) if tag == "table"
    ]
    assert boxed and set(boxed) == {"scroll"}
    levels = [int(tag[1]) for tag, _ in page.tags if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit()]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))


def test_the_page_says_its_scale_and_what_it_cannot_show(folder):
    publish_sheet(folder, {"about": {"shows": "It neither confirms nor refutes the paper's figures."}})
    text = build(folder)
    assert "digits scale" in text and "neither confirms nor refutes" in text


def test_the_same_folder_gives_the_same_bytes(folder):
    assert build(folder) == build(folder)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"figures": [{}]}', b'{"figures": 3}', b"\xff\xfe"])
def test_a_damaged_index_of_figures_is_one_line(folder, content, capsys):
    (folder / "figures").mkdir()
    (folder / "figures" / "figures.json").write_bytes(content)
    assert exit_code(lambda: main([str(folder)])) == 2
    message = capsys.readouterr().err
    assert "figures.json" in message and message.count("\n") == 1
    assert not (folder / "report.html").exists()


def test_an_index_may_name_only_figures_beside_it(folder, capsys):
    (folder / "figures").mkdir()
    (folder.parent / "secret.png").write_bytes(b"x")
    entry = '{"name": "a", "title": "a", "files": ["../../secret.png"], "caption": "", "missing": "", "sources": []}'
    (folder / "figures" / "figures.json").write_text(f'{{"figures": [{entry}]}}')
    assert exit_code(lambda: main([str(folder)])) == 2
    assert "secret.png" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["", "nowhere"])
def test_a_folder_with_nothing_to_show_is_one_line(tmp_path, where, capsys):
    assert exit_code(lambda: main([str(tmp_path / where)])) == 2
    message = capsys.readouterr().err
    assert "results/digits" in message and message.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_one_line(folder, capsys):
    (folder / "report.html").mkdir()
    assert exit_code(lambda: main([str(folder)])) == 2
    message = capsys.readouterr().err
    assert "report.html" in message and message.count("\n") == 1

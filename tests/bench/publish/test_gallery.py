"""The page of inverted images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli.arguments import exit_code
from bench.publish.gallery import build, main


def entry(name: str, **more) -> dict:
    frame = {"name": name, "title": name.upper(), "caption": f"About {name}.", "missing": "", "sources": []}
    return {**frame, "files": [f"{name}.png"], **more}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    figures = tmp_path / "results" / "digits" / "figures"
    figures.mkdir(parents=True)
    entries = [entry("sparsity"), entry("classes"), entry("looks", data="looks.csv"), entry("kept", files=[])]
    (figures / "figures.json").write_text(json.dumps({"format": 1, "figures": entries}))
    return tmp_path / "results"


def test_pictures_alone_in_their_order_linked_from_where_the_page_lies(results):
    text = build(results, results.parent / "docs")
    assert (
        "](../results/digits/figures/looks.png)" in text
        and "[CSV](../results/digits/figures/looks.csv)" in text
    )
    assert text.index("LOOKS") < text.index("CLASSES")
    assert "SPARSITY" not in text and "KEPT" not in text  # a line plot, and one that was not made


def test_without_pictures_it_is_one_line_and_the_page_stays(tmp_path, capsys):
    page = tmp_path / "gallery.md"
    page.write_text("old")
    assert exit_code(lambda: main(["--results", str(tmp_path), "--page", str(page)])) == 2
    assert capsys.readouterr().err.count("\n") == 1 and page.read_text() == "old"

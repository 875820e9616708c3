"""docs/adding.md to the letter: its files are written into a folder outside the project, its commands are run there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bench.engine.provenance import ROOT

PAGE = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`\.\./(mine/[\w./]+)`[^\n]*:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
PYTHON = ".nox/suite/bin/python"


def run(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable if word == PYTHON else word for word in shlex.split(command)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """An empty folder in the project's place, `mine` beside it as the page writes it."""
    base = tmp_path_factory.mktemp("adding")
    (base / "project").mkdir()
    written = FILE.findall(PAGE)
    for name, text in written:
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text(text, encoding="utf-8")
    assert len(written) == PAGE.count("\n`../mine/")  # no file of the page is passed over
    return base / "project"


@pytest.fixture(scope="module")
def results(project: Path) -> Path:
    """What all commands of the page, run one after the other, have made."""
    for command in (line for block in COMMANDS.findall(PAGE) for line in block.splitlines()):
        done = run(command, project)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return project.parent / "mine" / "results" / "digits"


def row(page: Path, title: str) -> str:
    return next(line for line in page.read_text(encoding="utf-8").splitlines() if f"| {title} " in line)


@pytest.mark.slow
def test_methods_of_ones_own_on_a_data_set_of_three_classes_reach_their_rows(results: Path):
    for title in ("Real images", "Blurred noise", "Drawn pictures", "Grey inversion"):
        assert re.search(r"\d+\.\d", row(results / "shapes.md", title)), title


@pytest.mark.slow
def test_a_score_of_ones_own_has_its_line_in_the_figure(results: Path):
    assert "<!-- contrast, W8/A8 -->" in (results / "figures" / "sparsity.svg").read_text(encoding="utf-8")


@pytest.mark.slow
def test_an_experiment_of_ones_own_has_its_table_and_figure(results: Path):
    assert re.search(r"\d+\.\d\d", row(results / "bright.md", "blurred"))
    assert (results / "figures" / "bright.png").is_file()
    assert "bright" in (results / "report.html").read_text(encoding="utf-8")

"""The examples run as scripts, without a network, and open as notebooks."""

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples"
PRINTS = {
    "distil": "student after 200 steps: ",
    "quantize_your_vit": "with 4-bit weights and 8-bit activations: ",
    "own_score": "saliency: loss ",
    "invert_hugging_face": "8 pictures, the first is 0_class0.png",
}


def test_every_example_is_run_here():
    elsewhere = {"dask_executor"}  # tests/bench/engine/executors/test_dask_example.py
    assert {path.stem for path in FOLDER.glob("*.py")} == {*PRINTS, *elsewhere, "digits"}


@pytest.mark.parametrize("name", PRINTS)
def test_an_example_opens_as_a_notebook(name):
    cells = jupytext.read(FOLDER / f"{name}.py").cells
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    assert sum(cell.cell_type == "code" for cell in cells) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("name", PRINTS)
def test_an_example_runs_as_a_script(name, tmp_path):
    done = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py"],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(FOLDER.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert PRINTS[name] in done.stdout
    assert list(tmp_path.iterdir()) == []

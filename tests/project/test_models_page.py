"""docs/models.md, which of timm's ViTs run: it names all of them, and what it says of some is so when tried again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch

from smi.vit import TokenModel
from tools import models_table
from tools.models_table import PAGE, REFUSALS, names, tried

ROOT = Path(__file__).resolve().parents[2]
TEXT = PAGE.read_text(encoding="utf-8")
RUNS, _, REFUSED = (half.partition("|---")[2] for half in TEXT.partition(REFUSALS.strip().splitlines()[0]))
ROW = re.compile(r"^\| `([\w.]+)`.*\| (\S+) \|$", re.MULTILINE)
SMALL = {
    "deit_tiny_distilled_patch16_224",
    "test_vit2",
    "vit_base_patch32_clip_224",
    "vit_large_patch32_224",
    "vit_little_patch16_reg4_gap_256",
    "vit_tiny_patch16_224",
}
OTHERS = (
    *("beit_base_patch16_224", "eva02_tiny_patch14_224", "swin_tiny_patch4_window7_224", "test_vit3"),
    *("vit_base_patch16_rpn_224", "vit_small_r26_s32_224", "vit_so400m_patch14_siglip_gap_384"),
)


def without_difference(row: str) -> str:
    return row.rpartition("| ")[0].rpartition("| ")[0]


def test_the_page_is_of_the_timm_that_is_locked():
    """Else `nox -s models_table` makes it anew."""
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    version = next(pin.removeprefix("timm==") for pin in pins if pin.startswith("timm=="))
    assert f"timm {version} " in TEXT and timm.__version__ == version


def test_every_name_of_these_families_stands_on_it_once():
    named = [name for name, _ in ROW.findall(RUNS)] + re.findall(r"`(\w+)`", REFUSED)
    assert sorted(named) == sorted(names()) and set(named) <= set(timm.list_models())


def test_every_row_that_runs_answers_as_timm_does():
    differences = [float(difference) for _, difference in ROW.findall(RUNS)]
    assert len(differences) > 100 and max(differences) < models_table.AGREE


@pytest.mark.parametrize("name", sorted(SMALL))
def test_what_runs_does_so_again(name):
    (row,) = [row for row in RUNS.splitlines() if f"`{name}`" in row]
    again = tried(name)
    assert not again.refusal and again.difference < models_table.AGREE
    assert without_difference(again.row) == without_difference(f"{row}\n")


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_refused_is_so_again_in_the_same_line(name):
    (row,) = [row for row in REFUSED.splitlines() if f"`{name}`" in row]
    assert row.startswith(f"| {tried(name).refusal} | ")


def test_a_model_that_answers_otherwise_leaves_no_page(monkeypatch, tmp_path):
    monkeypatch.setattr(TokenModel, "forward", lambda self, image, kept=None: torch.zeros(1, 1000))
    monkeypatch.setattr(models_table, "PAGE", tmp_path / "models.md")
    monkeypatch.setattr(models_table, "names", lambda: ["test_vit"])
    with pytest.raises(SystemExit, match="test_vit: smi's logits differ from timm's by 1"):
        models_table.main()
    assert not list(tmp_path.iterdir())


def test_the_page_counts_what_it_lists():
    runs, refused = map(int, re.findall(r"(\d+) run, (\d+) are refused", TEXT)[0])
    assert runs == len(ROW.findall(RUNS)) and refused == len(re.findall(r"`(\w+)`", REFUSED))

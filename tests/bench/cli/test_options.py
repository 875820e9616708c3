"""The command that a table names: what makes it again, and nothing of the machine that it was made on."""

import shlex
from pathlib import Path

import pytest

from bench.cli.options import command_line, parse
from bench.engine.provenance import ROOT


def named(*arguments: str, scale: str = "digits") -> str:
    return command_line(parse(arguments), scale)


def test_a_grid_of_the_project_is_named_from_its_root_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(ROOT / "experiments" / "table3.yaml")
    assert named("--grid", path) == "python -m bench.sweep --grid experiments/table3.yaml --scale digits"


def test_a_grid_elsewhere_is_named_as_it_was_given(tmp_path, monkeypatch):
    (tmp_path / "my").mkdir()
    monkeypatch.chdir(tmp_path)
    for given in ("my/tiny.yaml", str(tmp_path / "my" / "tiny.yaml")):
        assert named("--grid", given) == "python -m bench.sweep --grid my/tiny.yaml --scale digits"
    monkeypatch.chdir(tmp_path / "my")
    assert " --grid ../tiny.yaml " in named("--grid", "../tiny.yaml")
    assert " --grid DIR/tiny.yaml " in named("--grid", "/somewhere/else/tiny.yaml")


def test_data_and_weights_are_named_without_their_folders():
    text = named(
        *("--grid", "g.yaml", "--data", "pets=/mnt/me/pets", "--data", "my set=/data/x"),
        *("--imagenet", "/data/in", "--checkpoints", "/mnt/me/w", "--allow-cpu", "--only", "images *"),
    )
    assert "/mnt" not in text and "/data/" not in text
    words = shlex.split(text)
    assert words[words.index("--grid") + 3 :] == [
        *("digits", "--data", "pets=DIR", "--data", "my set=DIR"),
        *("--imagenet", "DIR", "--checkpoints", "DIR", "--only", "images *", "--allow-cpu"),
    ]


def test_folders_of_ones_own_modules_are_named_as_grids_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    text = named("--grid", "g.yaml", "--include", "mine", "--include", "/mnt/me/scores")
    assert text.endswith("--include mine --include DIR/scores")


@pytest.mark.parametrize("name", ["a b.yaml", "$(x).yaml", "it's.yaml"])
def test_the_command_can_be_pasted_whatever_the_grid_is_called(name):
    words = shlex.split(named("--grid", name))
    assert words[words.index("--grid") + 1] == Path(name).as_posix()

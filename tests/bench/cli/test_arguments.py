"""Places given to any command: home folders, empty values, what is given twice."""

from pathlib import Path

import pytest

from bench import doctor
from bench.cli.options import parse, sources_of
from bench.datasets.places import cache_folder
from bench.errors import BenchError
from bench.publish.figures.__main__ import main as figures

GRID = ["--grid", "grid.yaml"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.mark.parametrize("option", ["--store", "--results", "--imagenet", "--checkpoints", "--grid"])
def test_a_tilde_is_the_home_folder_in_every_option(home, option):
    given = [f"{option}=~/here"] if option == "--grid" else [*GRID, f"{option}=~/here"]
    assert getattr(parse(given), option[2:]) == home
    assert option == "--grid" or getattr(doctor.parse([f"{option}=~/here"]), option[2:]) == home
    with pytest.raises(BenchError, match="no such home folder"):
        parse([*GRID, option, "~nobody_of_that_name/x"])
    with pytest.raises(BenchError, match="it is empty"):
        parse([*GRID, option, ""])


def test_a_tilde_is_the_home_folder_in_data_and_in_the_cache(home, monkeypatch):
    assert sources_of(parse([*GRID, "--data", "mine=~/here"])).data == {"mine": home}
    monkeypatch.setenv("SMI_DATA_CACHE", "~/here")
    assert cache_folder() == home
    with pytest.raises(BenchError, match="no such home folder"):
        figures(["--results", "~nobody_of_that_name/x"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--data", "mine=.", "--data", "mine=/"], "--data mine= is given twice"),
        (["--data", "imagenet=.", "--imagenet", "."], "are the same option"),
    ],
)
def test_a_data_set_is_given_once(given, message):
    with pytest.raises(BenchError, match=message):
        sources_of(parse([*GRID, *given]))


def test_who_only_looks_fetches_nothing():
    for given, fetches in (([], True), (["--dry-run"], False), (["--status"], False), (["--cancel"], True)):
        sources = sources_of(parse([*GRID, *given]))
        assert sources.download is fetches and (sources.placeholders is None) is fetches
    assert isinstance(parse(GRID).store, Path)

"""A sweep with --decode-cache: the same results, and one line for a folder that will not do."""

from __future__ import annotations

import json

import pytest
import yaml_text
from vision_data import folders

import bench.datasets
from bench.__main__ import main as command
from bench.datasets.decode_cache import DecodeCache
from bench.sweep import main

GRID = {
    "name": "mine",
    "title": "My own pictures",
    "experiment": "quantization",
    "methods": {
        "full": {"title": "Full precision", "source": "none"},
        "real": {"title": "Real images", "source": "real"},
    },
    "scales": {
        "digits": {
            "axes": {
                "model": ["digits_vit"],
                "dataset": ["mine"],
                "method": ["full", "real"],
                "bits": ["W8/A8"],
                "seed": [0],
            },
            "settings": {"teacher": {"epochs": 1, "batch_size": 8}, "images": {"count": 8}},
        }
    },
}


@pytest.fixture
def sweep(tmp_path):
    """A function that runs the grid on 60 pictures: a store's name and further options -> exit code."""
    grid = tmp_path / "mine.yaml"
    grid.write_text(yaml_text.dump(GRID), encoding="utf-8")
    pictures = folders(tmp_path / "pictures", each=10)

    def run(store: str, *more) -> int:
        places = (
            "--store",
            tmp_path / store,
            "--results",
            tmp_path / "results",
            "--data",
            f"mine={pictures}",
        )
        options = ("--grid", grid, *places, "--device", "cpu", *more)
        return main([str(option) for option in options])

    return run


def metrics(store) -> dict:
    """Of each task by its name, but for seconds."""
    found = {}
    for path in store.glob("records/*/*.json"):
        record = json.loads(path.read_bytes())
        assert record["status"] == "done", record["error"]
        timed = [name for name in record["metrics"] if "seconds" in name]
        found[path.stem] = {name: value for name, value in record["metrics"].items() if name not in timed}
    return found


@pytest.mark.slow
def test_results_are_the_same_whether_pictures_were_decoded_before_or_not(
    sweep, tmp_path, capsys, monkeypatch
):
    assert sweep("plain", "--jobs", "1") == 0
    assert "decode cache" not in capsys.readouterr().out
    cache = tmp_path / "cache"
    assert sweep("cached", "--decode-cache", cache, "--dry-run") == 0
    said = capsys.readouterr().out
    assert f"decode cache: {cache}; to decode: mine train, mine validation, mine test, 61.4 kB of " in said
    assert not cache.exists()
    assert sweep("cached", "--decode-cache", cache, "--jobs", "2") == 0
    assert f"decode cache: {cache}; to decode: mine train, " in capsys.readouterr().out
    assert sum(path.stat().st_size for path in cache.glob("*/pixels.u8")) == 60 * 32 * 32
    expected = metrics(tmp_path / "plain")
    assert len(expected) == 4 and metrics(tmp_path / "cached") == expected
    monkeypatch.setattr(bench.datasets, "_held", {})  # what the first sweep decoded in this process
    assert sweep("again", "--decode-cache", cache, "--jobs", "1") == 0
    assert f"decode cache: {cache}; nothing to decode" in capsys.readouterr().out
    assert metrics(tmp_path / "again") == expected
    assert "decode" not in (tmp_path / "results" / "digits" / "mine.md").read_text(encoding="utf-8")

    assert command(["decode_cache", str(cache)]) == 0
    said = capsys.readouterr().out
    assert (
        "30.7 kB" in said
        and "mine test, 1 x 32 x 32" in said
        and said.endswith("3 splits read, none damaged\n")
    )
    pixels = next(cache.glob("*/pixels.u8"))
    pixels.write_bytes(bytes(pixels.stat().st_size))
    assert command(["decode_cache", str(cache)]) == 1
    assert f"damaged: {pixels.parent}\n" in capsys.readouterr().out


@pytest.mark.parametrize("mode", [(), ("--dry-run",)])
def test_a_folder_that_will_not_do_is_one_line_and_nothing_is_begun(
    sweep, tmp_path, capsys, monkeypatch, mode
):
    def refused(folder) -> str:
        assert sweep("store", "--decode-cache", folder, *mode) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1 and str(folder) in said
        assert not any((tmp_path / "store").glob("records/*/*.json"))
        return said

    (tmp_path / "file").touch()
    assert "is no folder" in refused(tmp_path / "file")
    assert "holds other things (test)" in refused(tmp_path / "pictures")
    other = tmp_path / "other"
    other.mkdir()
    (other / "decode_cache.json").write_text('{"version": 0}')
    assert "says version 0, this version of bench knows 1" in refused(other)
    if not mode:
        assert "cannot be written: Not a directory" in refused(tmp_path / "file" / "below")
    monkeypatch.setattr(DecodeCache, "free", lambda self: 1000)
    assert "has 1.0 kB free, 67.2 MB are needed" in refused(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_where_room_runs_out_meanwhile_the_sweep_ends_in_one_line(sweep, tmp_path, capsys, monkeypatch):
    rooms = iter([10**9, 10**9])  # what the sweep itself finds
    monkeypatch.setattr(DecodeCache, "free", lambda self: next(rooms, 1000))
    assert sweep("store", "--decode-cache", tmp_path / "cache", "--jobs", "1") == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 1 and "has 1.0 kB free" in said and "Traceback" not in said
    assert not any((tmp_path / "store").glob("records/*/*.json"))

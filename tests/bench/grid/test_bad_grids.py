"""Bad grids: whatever is wrong with one, the command line says so in one line and ends with exit code 2."""

from __future__ import annotations

import copy
import math
import random
import string
from pathlib import Path

import pytest
import toy_suite
import yaml_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.sweep import main

names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
bits = st.builds("W{}/A{}".format, st.integers(2, 8), st.integers(2, 8))


@st.composite
def grids(draw) -> dict:
    """A good grid of the toy suite."""
    methods = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    axes = {
        "model": draw(st.lists(names, min_size=1, max_size=2, unique=True)),
        "method": methods,
        "bits": draw(st.lists(bits, min_size=1, max_size=2, unique=True)),
        "seed": draw(st.lists(st.integers(0, 99), min_size=1, max_size=2, unique=True)),
    }
    resources = {
        "leaf": {"gpus": draw(st.integers(0, 8)), "minutes": draw(st.integers(1, 600)), "memory_gb": 4}
    }
    return {
        "name": "toy",
        "title": draw(st.text(string.ascii_letters, min_size=1, max_size=20)),
        "experiment": "toy",
        "methods": {method: {} for method in methods},
        "scales": {"digits": {"axes": axes, "settings": {"milliseconds": 0}, "resources": resources}},
    }


def paths(value, here=()):
    """Every place in a grid where something has a name or a position."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*here, key)
            yield from paths(inner, (*here, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield (*here, index)
            yield from paths(inner, (*here, index))


def parent(grid: dict, path: tuple):
    for part in path[:-1]:
        grid = grid[part]
    return grid


FREE = {("methods",), ("scales", "digits", "settings")}  # below these the suite decides what may stand
OPTIONAL = {("scales", "digits", "settings"), ("scales", "digits", "resources")}


def is_free(path: tuple) -> bool:
    return any(path[: len(prefix)] == prefix and len(path) > len(prefix) for prefix in FREE)


FAULTS = (
    "unknown key",
    "missing key",
    "wrong type",
    "repeated value",
    "bits",
    "seed",
    "method",
    "exclude",
    "include",
)
FAULTS += ("text", "bytes", "duplicate key", "code", "not finite", "empty axis", "name", "resources", "cut")
RESOURCES = [("gpus", -1), ("gpus", 1.5), ("gpus", "all"), ("cpus", 0), ("minutes", 0), ("memory_gb", 0)]
RESOURCES += [("memory_gb", "8G"), ("partition", 1), ("setup", "module load"), ("array_parallelism", 0)]
OPTIONS = [
    ["--scale", "huge"],
    ["--jobs", "0"],
    ["--jobs", "x"],
    ["--bogus"],
    ["--data", "x"],
    ["--device", "tpu7"],
]
OPTIONS += [["--imagenet", "/nowhere"], ["--checkpoints", "/nowhere"], ["--executor", "cloud"], ["--detach"]]
OPTIONS += [
    ["--only", "nothing"],
    ["--store", "toy.yaml/x"],
    ["--results", "toy.yaml/x"],
    ["--device", "cuda:99"],
]


@st.composite
def bad_grids(draw) -> bytes:
    """A good grid with one thing wrong, as the bytes of its file."""
    grid = copy.deepcopy(draw(grids()))
    everywhere = [path for path in paths(grid) if not is_free(path)]
    mappings = [path for path in [(), *everywhere] if isinstance(at(grid, path), dict) and path not in FREE]
    mappings = [path for path in mappings if path[-1:] not in (("resources",), ("scales",))]
    how = draw(st.sampled_from(FAULTS))
    digits = grid["scales"]["digits"]
    if how == "unknown key":
        path = draw(st.sampled_from(mappings))
        if path[-1:] == ("axes",):
            digits["axes"]["extra"] = {}
        else:
            at(grid, path)["extra"] = draw(st.sampled_from([1, "x", None, [], {}]))
    elif how == "missing key":
        required = [
            ("name",),
            ("title",),
            ("experiment",),
            ("methods",),
            ("scales",),
            ("scales", "digits", "axes"),
        ]
        path = draw(st.sampled_from(required))
        del parent(grid, path)[path[-1]]
    elif how == "wrong type":
        path = draw(st.sampled_from([path for path in everywhere if path not in OPTIONAL]))
        new = draw(st.sampled_from([None, [[]], [{"a": {}}], {"?": 1}]))
        parent(grid, path)[path[-1]] = new
    elif how == "repeated value":
        axis = digits["axes"][draw(st.sampled_from(list(digits["axes"])))]
        axis.append(axis[0])
    elif how == "bits":
        digits["axes"]["bits"].append(
            draw(st.sampled_from(["W1/A8", "W4/A9", "W4", "A8/W4", 4, "W-4/A8", "W4/A8 "]))
        )
    elif how == "seed":
        digits["axes"]["seed"].append(draw(st.sampled_from([-1, 2**31, 0.5, "one", True])))
    elif how == "method":
        digits["axes"]["method"].append("nobody knows this one")
    elif how == "exclude":
        bad = [
            {},
            {"extra": 1},
            {"seed": 1000},
            "x",
            {"seed": [0]},
            *[{axis: "zzz"} for axis in digits["axes"]],
        ]
        digits["exclude"] = [draw(st.sampled_from(bad))]
    elif how == "include":
        bad = [{"model": "only"}, {"bits": "W9/A9"}, {"method": "nobody"}, 3, {"seed": {}}, {"a b": 1}]
        digits["include"] = [draw(st.sampled_from(bad))]
    elif how == "empty axis":
        digits["axes"][draw(st.sampled_from(list(digits["axes"])))] = []
    elif how == "name":
        grid["name"] = draw(st.sampled_from(["", "Toy", "toy ", "../toy", "toy.yaml", 3, "t" * 99]))
    elif how == "resources":
        key, value = draw(st.sampled_from(RESOURCES))
        digits["resources"]["leaf"][key] = value
    text = yaml_text.dump(grid)
    if how == "text":
        text = draw(st.text(max_size=60))
    elif how == "bytes":
        return draw(st.binary(max_size=60))
    elif how == "duplicate key":
        text += "title: again\n"
    elif how == "code":
        text = text.replace("experiment: toy", "experiment: !!python/object/apply:os.getcwd []")
    elif how == "not finite":
        text = text.replace(
            "milliseconds: 0", f"milliseconds: {draw(st.sampled_from(['.nan', '.inf', '1e999']))}"
        )
    elif how == "cut":
        text = text[: draw(st.integers(0, text.index("axes")))]
    return text.encode("utf-8", "surrogatepass")


def at(grid: dict, path: tuple):
    for part in path:
        grid = grid[part]
    return grid


def sweep(folder: Path, content: bytes) -> int:
    file = folder / "toy.yaml"
    file.write_bytes(content)
    store, results = str(folder / "store"), str(folder / "results")
    return main(["--grid", str(file), "--store", store, "--results", results, "--dry-run"], toy_suite.SUITE)


relaxed = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=200, deadline=None, suppress_health_check=relaxed)
@given(content=bad_grids())
def test_a_bad_grid_is_one_line_and_exit_code_2(content, tmp_path, capsys):
    assert sweep(tmp_path, content) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and said.err.endswith("\n")
    assert str(tmp_path / "toy.yaml") in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["toy.yaml"]


@settings(max_examples=40, deadline=None, suppress_health_check=relaxed)
@given(grid=grids())
def test_a_good_grid_is_accepted(grid, tmp_path, capsys):
    assert sweep(tmp_path, yaml_text.dump(grid).encode()) == 0
    cells = math.prod(len(values) for values in grid["scales"]["digits"]["axes"].values())
    leaves = next(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("leaf "))
    assert leaves[:2] == ["leaf", str(cells)]


def test_random_damage_to_a_grid_never_ends_in_a_traceback(tmp_path, capsys):
    """Any byte of the file may be anything: refused in one line, or still a good grid."""
    chance = random.Random(0)
    whole = toy_suite.GRID.encode()
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        code = sweep(tmp_path, bytes(data))
        said = capsys.readouterr()
        assert code in (0, 2)
        assert said.err.count("\n") == (1 if code == 2 else 0)


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_a_bad_option_is_one_line_and_exit_code_2(options, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(toy_suite.GRID)
    assert main(["--grid", "toy.yaml", *options], toy_suite.SUITE) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert options[-1] in error or options[0] in error
    assert not list(tmp_path.glob("store/records/*"))

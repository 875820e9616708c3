"""Grids: what a file may say, how axes expand, and what errors point at."""

from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.grid import Strict, expand, load, parse_bits, yaml_file

GRID = """\
name: small
title: A small grid
experiment: quantization
methods:
  noise: {source: noise, lr: 1e-4}
  inverted: {source: on, time: 10:30}
scales:
  digits:
    axes:
      model: [a, b]
      method: [noise, inverted]
      bits: [W4/A8, W8/A8]
      seed: [0, 1, 2]
    resources:
      images: {gpus: 1, memory_gb: 8}
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes, name: str = "small.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refused(path: Path) -> str:
    with pytest.raises(BenchError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_cells_are_the_product_of_the_axes_in_order(write):
    cells = load(write(GRID)).cells("digits")
    assert len(cells) == 2 * 2 * 2 * 3
    assert cells[0] == {"model": "a", "method": "noise", "bits": "W4/A8", "seed": 0}
    assert cells[1] == {"model": "a", "method": "noise", "bits": "W4/A8", "seed": 1}


def test_scalars_follow_yaml_1_2(write):
    methods = load(write(GRID)).methods
    assert methods["noise"]["lr"] == 1e-4
    assert methods["inverted"] == {"source": "on", "time": "10:30"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("gpus: 1", "gpu: 1"), ["line 15", "unknown key 'gpu'", "allowed: gpus, cpus"]),
        (("gpus: 1", "gpus: many"), ["line 15", "gpus", "integer"]),
        (("gpus: 1", "gpus: -1"), ["line 15", "gpus"]),
        (("experiment: quantization\n", ""), ["'experiment' is missing"]),
        (("title: A small grid", "titel: A small grid"), ["line 2", "unknown key 'titel'", "title"]),
        (("W4/A8", "W9/A8"), ["line 12", "bits[0]", "W9/A8", "2 to 8"]),
        (("W4/A8", "W4A8"), ["line 12", "bits[0]", "W4A8"]),
        (("W4/A8", "1"), ["line 12", "bits[0]"]),
        (
            ("[noise, inverted]", "[noise, nose]"),
            ["line 11", "unknown method 'nose'", "allowed: noise, inverted"],
        ),
        (("[0, 1, 2]", "[0, 1, -2]"), ["line 13", "seed[2]", "-2"]),
        (("[0, 1, 2]", "[0, 1, 1]"), ["line 13", "1 appears twice"]),
        (("[0, 1, 2]", "[0, 1, true]"), ["line 13", "seed[2]"]),
        (("[0, 1, 2]", "[]"), ["line 13", "seed"]),
        (("[0, 1, 2]", "3"), ["line 13", "seed"]),
        (("[0, 1, 2]", "[0, [1]]"), ["line 13", "seed[1]"]),
        (("name: small", "name: other"), ["line 1", "'other'", "'small'"]),
        (("name: small", "name: small\nname: small"), ["line 2", "twice"]),
        (("lr: 1e-4", "lr: .nan"), ["line 5", "finite"]),
        (("lr: 1e-4", "lr: 1e400"), ["line 5", "finite"]),
        (("lr: 1e-4", "lr: " + "9" * 5000), ["line 5", "digits"]),
        (("lr: 1e-4", "1: 2"), ["line 5", "not text"]),
        (("lr: 1e-4", "lr: !!python/object/apply:os.system [x]"), ["line 5", "no code"]),
        (("lr: 1e-4", "lr: !!timestamp 2001-01-01"), ["line 5", "tag"]),
        (("lr: 1e-4", "lr: *nobody"), ["line 5", "nobody"]),
        (("lr: 1e-4", "lr: !!int many"), ["line 5", "'many' is no int"]),
        (("lr: 1e-4", "lr: {<<: {a: 1}, b: 1, b: 2}"), ["line 5", "'b' appears twice"]),
        (("lr: 1e-4", "lr: {<<: {a: 1}, <<: {b: 1}}"), ["line 5", "'<<' appears twice"]),
        (("lr: 1e-4", "lr: {<<: 1}"), ["line 5", "merging"]),
        (("lr: 1e-4", "lr: &me [*me]"), ["line 5", "contains itself"]),
        (("lr: 1e-4", "lr: {"), ["line"]),
    ],
)
def test_a_bad_grid_is_one_line_that_says_where(write, change, says):
    assert change[0] in GRID
    message = refused(write(GRID.replace(*change, 1)))
    for words in says:
        assert words in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"# nothing\n", "empty"),
        (b"- a\n- b\n", "mapping"),
        (b"just words", "mapping"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "not text"),
        (b"a: \x00", "binary"),
        (b"a: 1\n---\nb: 2\n", "YAML"),
        (b"[" * 50_000, "nested too deeply"),
        (b"a: {" * 50_000, "nested too deeply"),
        (b"- " * 500_000, "nested too deeply"),
        (b'a: "\\U00110000"', "not plain YAML"),
        (b"x" * (1 << 21), "larger"),
    ],
)
def test_what_is_no_grid_at_all(write, content, says):
    assert says in refused(write(content))


def test_a_folder_and_a_missing_file(tmp_path):
    assert "folder" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "none.yaml")


def test_aliases_cannot_explode(write):
    text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for one, other in zip("abcdefgh", "bcdefghi", strict=True):
        text += f"{other}: &{other} [{', '.join([f'*{one}'] * 10)}]\n"
    assert "values" in refused(write(text))


MERGES = """
small: &small {iterations: 10, rate: 1}
large: &large {<<: *small, iterations: 20}
chained: {<<: *large, epochs: 3}
listed: {<<: [*large, {iterations: 30, rate: 2, epochs: 4}], rate: 5}
"""


def test_merge_keys_are_read_as_their_standard_says(tmp_path):
    """yaml.org/type/merge.html: own keys go before merged ones, earlier mappings of a list before later ones."""
    path = tmp_path / "merges.yaml"
    path.write_text(MERGES, encoding="utf-8")
    assert yaml_file.read(path).value == {
        "small": {"iterations": 10, "rate": 1},
        "large": {"iterations": 20, "rate": 1},
        "chained": {"iterations": 20, "rate": 1, "epochs": 3},
        "listed": {"iterations": 20, "rate": 5, "epochs": 4},
    }


SCALARS = (
    "a: [1e-4, .5e3, 0x1f, 0o17, 010, +1, ~, True]\nb: [on, 'no', 10:30, 1_000, 0b11, 2001-01-01, =, .e1]\n"
)


@pytest.mark.parametrize("head", ["", "%YAML 1.1\n---\n"])
def test_scalars_are_those_of_the_core_schema_of_yaml_1_2(tmp_path, head):
    path = tmp_path / "scalars.yaml"
    path.write_text(head + SCALARS, encoding="utf-8")
    assert yaml_file.read(path).value == {
        "a": [0.0001, 500.0, 31, 15, 10, 1, None, True],
        "b": ["on", "no", "10:30", "1_000", "0b11", "2001-01-01", "=", ".e1"],
    }


def test_too_many_cells(write):
    seeds = ", ".join(str(seed) for seed in range(20_000))
    assert "cells" in refused(write(GRID.replace("[0, 1, 2]", f"[{seeds}]")))


def test_unknown_scale_names_the_scales_there_are(write):
    with pytest.raises(BenchError, match=r"unknown scale 'huge'; allowed: digits"):
        load(write(GRID)).cells("huge")


def test_include_and_exclude_are_githubs():
    """The example of GitHub's documentation of job matrices."""
    axes = {"fruit": ["apple", "pear"], "animal": ["cat", "dog"]}
    include = [
        {"color": "green"},
        {"color": "pink", "animal": "cat"},
        {"fruit": "apple", "shape": "circle"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]
    assert expand(axes, include, []) == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]
    assert expand(axes, [], [{"fruit": "apple"}]) == [
        {"fruit": "pear", "animal": "cat"},
        {"fruit": "pear", "animal": "dog"},
    ]


def test_exclude_then_include(write):
    more = "    exclude: [{method: noise, bits: W4/A8}]\n"
    more += "    include: [{model: c, method: noise, bits: W3/A3, seed: 7}]\n"
    cells = load(write(GRID + more)).cells("digits")
    assert len(cells) == 24 - 6 + 1
    assert cells[-1] == {"model": "c", "method": "noise", "bits": "W3/A3", "seed": 7}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("exclude: [{methd: noise}]", ["'methd' is no axis", "allowed: model, method, bits, seed"]),
        ("exclude: [{seed: 9}]", ["9 is not on the axis seed", "allowed: 0, 1, 2"]),
        ("exclude: [{}]", ["exclude every cell"]),
        ("exclude: [{model: a}, {model: b}]", ["every cell is excluded"]),
        ("include: [{model: c}]", ["must name every axis", "method, bits, seed"]),
        ("include: [{model: c, method: noise, bits: W1/A8, seed: 0}]", ["include[0].bits", "W1/A8"]),
        ("include: [{method: nobody}]", ["unknown method"]),
    ],
)
def test_bad_include_and_exclude(write, entry, says):
    message = refused(write(f"{GRID}    {entry}\n"))
    assert "line 16" in message
    for words in says:
        assert words in message


def test_a_section_is_read_by_the_schema_of_its_experiment(write):
    class Inversion(Strict):
        source: str
        lr: float = 0.1

    grid = load(write(GRID))
    assert grid.section(Inversion, "methods", "noise").lr == 1e-4
    with pytest.raises(
        BenchError, match=r"line 6, methods.inverted.time: unknown key 'time'; allowed: source, lr"
    ):
        grid.section(Inversion, "methods", "inverted")


def test_bit_widths():
    assert parse_bits("W4/A8") == (4, 8)
    for bad in ("W1/A8", "W4/A9", "w4/a8", "W4/A8 ", "W04A8", "", None, 48):
        with pytest.raises(ValueError, match="allowed"):
            parse_bits(bad)

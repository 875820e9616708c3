"""Reading a YAML file safely, with the line of every key, for errors that point at it.

Differences from plain `yaml.safe_load`: scalars follow YAML 1.2 (`1e-4` is a float, `on` and `10:30` are strings),
duplicate keys are refused, and a file cannot carry code, endless aliases or numbers that are not finite.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.errors import BenchError
from bench.text import one_line

MAX_BYTES = 1 << 20  # a grid is a page of text
MAX_VALUES = 100_000  # after aliases are followed
Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """A parsed file: its value, and the line (from 1) of every key and list entry by its path from the root."""

    path: Path
    value: Any
    lines: dict[Location, int]

    def line(self, location: Location) -> int:
        """The line of the nearest enclosing key that is in the file."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)

    def error(self, location: Location, message: str) -> BenchError:
        """One line: file, line, key, what is wrong."""
        key = dotted(location)
        where = f"{self.path}, line {self.line(location)}" + (f", {key}" if key else "")
        return BenchError(f"{where}: {one_line(message)}")


def dotted(location: Location) -> str:
    """`("scales", "digits", "include", 0)` -> `scales.digits.include[0]`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return one_line(text)


def read(path: Path) -> Document:
    """Parse one YAML file. Raises BenchError, one line, for anything that is not a plain YAML mapping."""
    text = _read_text(path)
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise BenchError(f"{path}: the file is empty; a grid is a YAML mapping")
            _refuse_endless(path, node)
            lines: dict[Location, int] = {}
            _collect_lines(node, (), lines)
            value = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}" if mark else ""
        raise BenchError(
            f"{path}{place}: not plain YAML: {one_line(str(error.problem or error.context))}"
        ) from None
    except yaml.YAMLError as error:
        raise BenchError(f"{path}: not plain YAML: {one_line(str(error))}") from None
    except RecursionError:
        raise BenchError(f"{path}: nested too deeply to be a grid") from None
    document = Document(path, value, lines)
    if not isinstance(value, dict):
        raise document.error((), f"a grid is a YAML mapping, not {_kind(value)}")
    return document


def _read_text(path: Path) -> str:
    try:
        if path.is_dir():
            raise BenchError(f"{path}: is a folder; give a grid file such as experiments/table3.yaml")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise BenchError(f"{path}: no such file{_neighbours(path)}") from None
    except (OSError, ValueError) as error:
        raise BenchError(f"{one_line(str(path))}: cannot be read: {one_line(str(error))}") from None
    if len(data) > MAX_BYTES:
        raise BenchError(f"{path}: larger than {MAX_BYTES} bytes; a grid is a page of YAML")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BenchError(f"{path}: not text in UTF-8 (byte {error.start}); a grid is YAML") from None
    if "\0" in text:
        raise BenchError(f"{path}: a binary file; a grid is YAML")
    return text


def _neighbours(path: Path) -> str:
    for folder in (path.parent, Path("experiments")):
        grids = sorted(str(grid) for grid in folder.glob("*.yaml")) if folder.is_dir() else []
        if grids:
            return "; there are " + ", ".join(grids[:12])
    return ""


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true/false", type(None): "nothing"}
    return names.get(type(value), "a number")


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (STRING, MERGE):
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"the key {shown!r} is not text (put it in quotes if it is meant so)",
                    key.start_mark,
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} appears twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


STRING, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    if len(text) > 18:
        raise yaml.constructor.ConstructorError(
            None, None, "a whole number of more than 18 digits", node.start_mark
        )
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node)
    value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if not math.isfinite(value):
        raise yaml.constructor.ConstructorError(None, None, f"{text} is not a finite number", node.start_mark)
    return value


def _refuse_construct(loader: _Loader, node: yaml.Node) -> Any:
    raise yaml.constructor.ConstructorError(
        None,
        None,
        f"the tag {node.tag} is not allowed: a grid holds plain values and no code",
        node.start_mark,
    )


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
for _tag in ("timestamp", "binary", "set", "omap", "pairs"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _refuse_construct)
_Loader.add_constructor(None, _refuse_construct)


def _refuse_endless(path: Path, root: yaml.Node) -> None:
    """Refuse aliases that contain themselves or that multiply beyond any honest grid."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, above: frozenset[int]) -> int:
        if id(node) in above:
            raise BenchError(f"{path}, line {node.start_mark.line + 1}: an alias that contains itself")
        if id(node) not in sizes:
            inside = above | {id(node)}
            children: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                children = [child for pair in node.value for child in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = node.value
            sizes[id(node)] = 1 + sum(size(child, inside) for child in children)
        if sizes[id(node)] > MAX_VALUES:
            raise BenchError(f"{path}, line {node.start_mark.line + 1}: more than {MAX_VALUES} values")
        return sizes[id(node)]

    size(root, frozenset())


def _collect_lines(node: yaml.Node, location: Location, lines: dict[Location, int]) -> None:
    lines.setdefault(location, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                lines[(*location, key.value)] = key.start_mark.line + 1
                _collect_lines(value, (*location, key.value), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect_lines(value, (*location, index), lines)

"""Reading a YAML 1.2 file safely, with the line of every key, for errors that point at it.

ruamel.yaml reads and builds; duplicate keys, keys that are not text, tags, endless aliases, endless depth and numbers
that are not finite are refused here, each with its line. Scalars are those of the core schema of YAML 1.2 and no
others (`1e-4` is a float; `on`, `10:30`, `1_000` and `2001-01-01` are text). Merge keys (`<<`) are read as
yaml.org/type/merge.html says: a key of a mapping's own goes before a merged one, and neither is a duplicate.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import MaxDepthExceededError
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.resolver import BaseResolver

from bench.errors import BenchError
from bench.text import one_line

MAX_BYTES = 1 << 20  # a grid is a page of text
MAX_VALUES = 1_000_000  # after aliases are followed: a file of some lines must not become a memory full
MAX_DEPTH = 100
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
        node = _compose(text)
        if node is None:
            raise BenchError(f"{path}: the file is empty; a grid is a YAML mapping")
        _check(path, node)
        lines: dict[Location, int] = {}
        _collect_lines(node, (), lines)
        value = _Constructor().construct_document(node)
    except MaxDepthExceededError as error:
        raise BenchError(
            f"{path}, line {error.problem_mark.line + 1}: nested too deeply to be a grid"
        ) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}" if mark else ""
        what = ": ".join(filter(None, (error.context, error.problem)))
        raise BenchError(f"{path}{place}: not plain YAML: {one_line(what)}") from None
    except (YAMLError, ValueError, OverflowError) as error:  # the latter: an escape beyond Unicode
        raise BenchError(f"{path}: not plain YAML: {one_line(str(error))}") from None
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


def _compose(text: str) -> Node | None:
    """The nodes of the text's one document; None if it is empty."""
    yaml = YAML(typ="safe", pure=True)  # the C parser knows YAML 1.1 only, and crashes on deep nesting
    yaml.Resolver = _Resolver
    yaml.max_depth = MAX_DEPTH
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReusedAnchorWarning)  # YAML lets an anchor be set again
        return yaml.compose(text)


class _Resolver(BaseResolver):
    """What a plain scalar is, by YAML 1.2's core schema; ruamel's own rules know more kinds."""

    def __init__(self, version: Any = None, loader: Any = None, loadumper: Any = None) -> None:
        super().__init__(loader if loadumper is None else loadumper)

    @property
    def processing_version(self) -> tuple[int, int]:
        return (1, 2)  # whatever a %YAML directive says


class _Constructor(SafeConstructor):
    """Builds the values of the core schema and nothing else."""

    yaml_constructors: dict[str | None, Callable[..., Any]] = {}


TAG = "tag:yaml.org,2002:"
STRING, MERGE = f"{TAG}str", f"{TAG}merge"


def _int(text: str) -> int:
    if len(text) > 18:
        raise ValueError("a whole number of more than 18 digits")
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _float(text: str) -> float:
    value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


_DIGITS = ["-", "+", *"0123456789"]
_SCALARS: dict[
    str, tuple[str, list[str], Callable[[str], Any]]
] = {  # kind -> pattern, first characters, value
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF"), lambda text: text.lower() == "true"),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""], lambda text: None),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", _DIGITS, _int),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        [".", *_DIGITS],
        _float,
    ),
}


def _scalar(kind: str) -> Callable[[_Constructor, Node], Any]:
    pattern, _, value = _SCALARS[kind]

    def construct(constructor: _Constructor, node: Node) -> Any:
        text = constructor.construct_scalar(node)
        if not re.fullmatch(pattern, text):  # a plain scalar does; one with a tag need not
            raise ConstructorError(None, None, f"{text!r} is no {kind}", node.start_mark)
        try:
            return value(text)
        except ValueError as error:
            raise ConstructorError(None, None, str(error), node.start_mark) from None

    return construct


def _refuse(constructor: _Constructor, node: Node) -> Any:
    raise ConstructorError(
        None,
        None,
        f"the tag {node.tag} is not allowed: a grid holds plain values and no code",
        node.start_mark,
    )


for _kind_of_scalar, (_pattern, _first, _) in _SCALARS.items():
    _Resolver.add_implicit_resolver_base(f"{TAG}{_kind_of_scalar}", re.compile(rf"^(?:{_pattern})$"), _first)
    _Constructor.add_constructor(f"{TAG}{_kind_of_scalar}", _scalar(_kind_of_scalar))
_Resolver.add_implicit_resolver_base(MERGE, re.compile(r"^<<$"), ["<"])
for _collection in ("str", "seq", "map"):
    _Constructor.add_constructor(
        f"{TAG}{_collection}", getattr(SafeConstructor, f"construct_yaml_{_collection}")
    )
_Constructor.add_constructor(None, _refuse)


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, SequenceNode) else []


def _check(path: Path, root: Node) -> None:
    """Refuse keys that are no text or appear twice, aliases that contain themselves, and those that multiply."""
    sizes: dict[int, int] = {}  # by the node's identity, what it holds after aliases are followed
    above: set[int] = set()

    def size(node: Node) -> int:
        line = node.start_mark.line + 1
        if id(node) in above:
            raise BenchError(f"{path}, line {line}: an alias that contains itself")
        if id(node) not in sizes:
            if isinstance(node, MappingNode):
                _check_keys(node)
            above.add(id(node))
            sizes[id(node)] = 1 + sum(size(child) for child in _children(node))
            above.remove(id(node))
        if sizes[id(node)] > MAX_VALUES:
            raise BenchError(f"{path}, line {line}: more than {MAX_VALUES} values")
        return sizes[id(node)]

    size(root)


def _check_keys(node: MappingNode) -> None:
    """On the nodes as they are written, before any merge adds keys to them."""
    seen: set[str] = set()
    for key, _ in node.value:
        problem = None
        if not isinstance(key, ScalarNode) or key.tag not in (STRING, MERGE):
            shown = key.value if isinstance(key, ScalarNode) else "a list or mapping"
            problem = f"the key {shown!r} is not text (put it in quotes if it is meant so)"
        elif key.value in seen:
            problem = f"the key {key.value!r} appears twice"
        if problem is not None:
            raise ConstructorError(None, None, problem, key.start_mark)
        seen.add(key.value)


def _collect_lines(node: Node, location: Location, lines: dict[Location, int]) -> None:
    lines.setdefault(location, node.start_mark.line + 1)
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if isinstance(key, ScalarNode):
                lines[(*location, key.value)] = key.start_mark.line + 1
                _collect_lines(value, (*location, key.value), lines)
    elif isinstance(node, SequenceNode):
        for index, value in enumerate(node.value):
            _collect_lines(value, (*location, index), lines)

"""What a plan has to know of things from outside the project: images that methods bring, and the code behind tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from bench.engine import include
from bench.errors import BenchError
from bench.grid import Grid
from bench.tasks import given
from smi.errors import SmiError


class _Method(Protocol):
    """The fields of bench.experiments.builders.schemas.Method that are looked at here."""

    source: str
    files: str | None
    options: dict[str, Any]


def check_method(grid: Grid, name: str, method: _Method) -> None:
    """What only pictures from files, and only a function of the user's own, need and take. Raises BenchError."""
    here = ("methods", name)
    if method.source == "files" and method.files is None:
        raise grid.error((*here, "source"), "source 'files' needs `files`", [given.ALLOWED])
    if method.source != "files" and method.files is not None:
        raise grid.error((*here, "files"), "only `source: files` takes files")
    if method.options and ":" not in method.source:
        raise grid.error((*here, "options"), "only a source module:function takes options")
    if ":" in method.source:
        try:
            given.check_signature(method.source, method.options)
        except BenchError as error:
            raise grid.error((*here, "source"), str(error)) from None


def fingerprint(grid: Grid, method: str, files: str, count: int) -> str:
    """Hash of the pictures that a method names, of which there must be enough. Raises BenchError."""
    try:
        return given.fingerprint(grid.beside(files), count)
    except (BenchError, SmiError) as error:
        raise grid.error(("methods", method, "files"), str(error)) from None


def code_behind(kind: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the included code (bench.engine.include) that a task with these settings runs; empty without any."""
    recipe, source = settings.get("recipe"), str(settings.get("source", ""))
    things = [f"kind {kind}", f"score {settings.get('score')}", f"module {source.partition(':')[0]}"]
    if isinstance(recipe, Mapping):
        things += [f"term {entry[0]}" for entry in recipe.get("objective", ())]
    splits = [value for value in settings.values() if isinstance(value, Mapping) and "split" in value]
    things += [f"dataset {split.get('name')}" for split in splits]
    return {thing: code for thing in things if (code := include.code(thing)) is not None}

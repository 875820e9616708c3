"""Python from outside the project: the folders that `--include` or a grid's `include:` names, and nothing else.

Every module (`*.py`) and package of such a folder is imported once a process, in the order of names; those that begin
with `_` only where another imports them. What they register (bench/register.py) works by name from then on, and
tasks that use it hold the hash of its code: the module's files and those it imports from the same folder.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.engine.task import KEY_LENGTH, Task
from bench.errors import BenchError
from bench.text import one_line


@dataclass(frozen=True)
class _Module:
    """A module or package of an included folder. code: hash of its files and of those it imports there."""

    name: str
    folder: Path
    file: Path
    code: str = ""

    @property
    def place(self) -> str:
        return _shown(self.file, self.folder)


_folders: dict[Path, BenchError | None] = {}  # loaded, or why it could not be
_modules: dict[str, _Module] = {}
_things: dict[str, _Module] = {}  # what is registered, e.g. "score contrast" -> by which module
_importing: _Module | None = None


def load(folders: Iterable[Path]) -> None:
    """Import what the folders hold. Raises BenchError: file, line and what is wrong."""
    for folder in folders:
        root = Path(folder).expanduser().resolve()
        if root not in _folders:
            try:
                _load(root)
                _folders[root] = None
            except BenchError as error:
                _folders[root] = error
        if (failed := _folders[root]) is not None:
            raise failed


def note(thing: str) -> str:
    """Put down that the module being imported registers a thing ("score contrast"); returns the module's file."""
    if _importing is None:
        raise BenchError(f"{thing} is registered by no module of a folder that --include or include: names")
    if thing in _things:
        raise BenchError(f"{thing} is there already, from {_things[thing].place}; give yours another name")
    _things[thing] = _importing
    return _importing.place


def code(thing: str) -> str | None:
    """Hash of the code behind a registered thing, or "module NAME"; None where it is not from outside."""
    return _things[thing].code if thing in _things else None


def check(task: Task) -> None:
    """Raise BenchError where the code that a task was planned with is not the code that is here."""
    planned = task.settings.get("code")
    for thing, wanted in planned.items() if isinstance(planned, Mapping) else ():
        if code(thing) != wanted:
            at = f" in {_things[thing].place}" if thing in _things else ""
            raise BenchError(
                f"{thing}: the code{at} is not what was planned with; the same command plans anew"
            )


def function(named: str) -> Callable[..., Any]:
    """The function "module:function" of an included folder. Raises BenchError: nothing else is imported."""
    module, _, name = named.partition(":")
    if module not in _modules:
        known = ", ".join(sorted(_modules)) or "none; --include FOLDER names a folder that holds some"
        raise BenchError(f"{named!r}: no included folder holds the module {module!r}; modules: {known}")
    found = getattr(importlib.import_module(module), name, None)
    if not callable(found):
        raise BenchError(f"{named!r}: {_modules[module].place} has no function {name!r}")
    return found


def where(error: BaseException) -> str | None:
    """`mine/contrast.py, line 7`: the last line of an included file that an error came through; None if none."""
    if isinstance(error, SyntaxError) and error.filename and (root := _root_of(Path(error.filename))):
        return f"{_shown(Path(error.filename), root)}, line {error.lineno}"
    found, step = None, error.__traceback__
    while step is not None:
        path = Path(step.tb_frame.f_code.co_filename)
        if root := _root_of(path):
            found = f"{_shown(path, root)}, line {step.tb_lineno}"
        step = step.tb_next
    return found


def explained(error: BaseException) -> str | None:
    """One line for an error of included code, its own kind named unless it is a BenchError; None for any other."""
    place = where(error)
    if place is None:
        return None
    text = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
    return f"{place}: {one_line(text, 2000)}"


def file_of(module: str) -> str:
    """`mine/pictures.py` of an included module."""
    return _modules[module].place


def _load(root: Path) -> None:
    if not root.is_dir():
        raise BenchError(f"--include {root}: there is no such folder; allowed: one that holds Python modules")
    found = _find(root)
    if not any(name[0] != "_" for name in found):
        raise BenchError(
            f"--include {root}: no Python module in it; allowed: *.py and packages, not named _*"
        )
    for name, file in found.items():
        _refuse_taken(name, file, root)
    sys.path.append(str(root))  # last: nothing in it can stand in for another module
    importlib.invalidate_caches()
    codes = _codes(root, found)
    made = {name: _Module(name, root, file, codes[name]) for name, file in found.items()}
    _modules.update(made)
    _things.update({f"module {name}": module for name, module in made.items()})
    for name in sorted(found):
        if name[0] != "_":
            _import(made[name])


def _find(root: Path) -> dict[str, Path]:
    """Module -> its file (a package's __init__.py)."""
    found = {}
    for path in sorted(root.iterdir()):
        file = path / "__init__.py" if path.is_dir() else path
        if file.suffix != ".py" or not file.is_file() or path.name == "__init__.py":
            continue
        name = path.stem if path.is_file() else path.name
        if not name.isidentifier():
            raise BenchError(
                f"{_shown(file, root)}: {name!r} is no module's name; allowed: letters, digits and _"
            )
        if name in found:
            raise BenchError(f"{_shown(file, root)}: {name!r} is a module and a package; rename one")
        found[name] = file
    return found


def _refuse_taken(name: str, file: Path, root: Path) -> None:
    spec = importlib.util.find_spec(name) if name not in sys.modules else sys.modules[name].__spec__
    origin = None if spec is None else spec.origin
    ours = origin is not None and Path(origin).resolve() == file.resolve()
    if (
        spec is not None and origin is not None and not ours
    ):  # a bare folder of that name stands in for nothing
        raise BenchError(f"{_shown(file, root)}: there is a module {name!r} already ({origin}); rename yours")


def _import(module: _Module) -> None:
    global _importing
    _importing = module
    try:
        importlib.import_module(module.name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a module is no command
        text = f"{type(error).__name__}: {error}"
        raise BenchError(explained(error) or f"{module.place}: {one_line(text)}") from error
    finally:
        _importing = None


def _codes(root: Path, found: Mapping[str, Path]) -> dict[str, str]:
    """Module -> hash of its files and of those of the folder's modules that it imports, names and contents."""
    files = {
        name: sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
        for name, file in found.items()
    }
    imports = {name: {other for file in files[name] for other in _imports(file)} for name in found}
    codes = {}
    for name in found:
        reached, ahead = set(), [name]
        while ahead:
            module = ahead.pop()
            if module in found and module not in reached:
                reached.add(module)
                ahead += imports[module]
        digest = hashlib.sha256()
        for file in sorted(file for module in reached for file in files[module]):
            digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        codes[name] = digest.hexdigest()[:KEY_LENGTH]
    return codes


def _imports(file: Path) -> set[str]:
    """Top names of what a file imports anywhere; none where it cannot be read, which its import will say."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError):
        return set()
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in names}


def _root_of(path: Path) -> Path | None:
    known = [*_folders, *(module.folder for module in _modules.values())]
    return next((root for root in known if path.is_relative_to(root)), None)


def _shown(path: Path, root: Path) -> str:
    """From the folder's own name: no path of one machine gets into a record."""
    return f"{root.name}/{path.relative_to(root).as_posix()}"

"""The environments that nox's sessions run in: made once, shared, made anew when what they depend on changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nox
from nox.command import CommandFailed

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
SUITE = ["-e", ".[bench,test]", "-c", str(CONSTRAINTS)]


def environment(session: nox.Session, name: str = "suite", install: list[str] = SUITE) -> str:
    """Path of the Python of the environment `.nox/<name>`, made by `pip install <install>` if it is not there yet.

    A stamp written last says what was installed, so after a kill half-way, with another Python, in a moved
    checkout or with other dependencies it is made anew. Two sessions started together install once.
    """
    folder = ROOT / ".nox" / name
    python, stamp = folder / "bin" / "python", folder / "installed.json"
    wanted = fingerprint(install)

    def ready() -> bool:
        return python.exists() and stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted

    if ready():
        return str(python)
    with locked(session, folder.with_suffix(".lock")):
        if ready():
            return str(python)
        size = "about 3 GB to fetch, once, 1 to 5 minutes" if "-e" in install else "some 20 MB to fetch, once"
        session.log(f"Installing into {folder.relative_to(ROOT)}: {size}.")
        uv = find_uv()
        installed = False
        if uv:
            shutil.rmtree(folder, ignore_errors=True)
            try:
                session.run_install(uv, "venv", "--quiet", "--python", sys.executable, str(folder))
                session.run_install(uv, "pip", "install", "--python", str(python), *install)
                installed = True
            except CommandFailed:
                session.warn("uv could not install (see above); trying pip, which may know other indexes.")
        if not installed:
            shutil.rmtree(folder, ignore_errors=True)
            session.run_install(sys.executable, "-m", "virtualenv", "--no-periodic-update", str(folder))
            session.run_install(str(python), "-m", "pip", "install", *install)
        stamp.write_text(wanted, encoding="utf-8")
    return str(python)


def fingerprint(install: list[str]) -> str:
    """Everything that an installation depends on; not all of pyproject.toml, which also configures tools."""
    pyproject = nox.project.load_toml(ROOT / "pyproject.toml")
    parts = {
        "install": install,
        "project": pyproject["project"],
        "packages": pyproject["tool"]["setuptools"],
        "constraints": hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest(),
        "python": [sys.version, sys.base_prefix],
        "checkout": str(ROOT),
    }
    return json.dumps(parts, indent=1, sort_keys=True)


def overlay(session: nox.Session, requirement: str) -> str:
    """Folder with one pure-Python package, `name==version`, to lay over the shared environment by PYTHONPATH."""
    folder = ROOT / ".nox" / requirement.replace("==", "-")
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        uv = find_uv()
        installer = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
        with_python = ["--python", environment(session)] if uv else []
        session.run_install(
            *installer,
            "install",
            "--quiet",
            "--no-deps",
            *with_python,
            "--target",
            str(unfinished),
            requirement,
        )
        unfinished.rename(folder)
    return str(folder)


def newest_timm() -> str:
    """The version that the shared environment has."""
    pins = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    return next(pin.removeprefix("timm==") for pin in pins if pin.startswith("timm=="))


def find_uv() -> str | None:
    """uv beside nox, else on PATH."""
    with contextlib.suppress(ImportError, FileNotFoundError):
        from uv import find_uv_bin

        return find_uv_bin()
    return shutil.which("uv")


@contextlib.contextmanager
def locked(session: nox.Session, path: Path) -> Iterator[None]:
    """Hold the lock file; the system frees it when its holder dies."""
    import fcntl

    path.parent.mkdir(exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            session.log("Another session is installing; waiting for it.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def python(session: nox.Session, *arguments: str, executable: str | None = None, **options) -> None:
    """Run `python -m <arguments>` in the shared environment, or with `executable`; `options` go to session.run.

    Exit codes above 1 (2: bad input) become nox's own, which would else be 1. After Ctrl-C the command has
    time to save its state. PYTHONPATH is dropped: the environment is meant to be all there is. Bytecode is kept
    even where that is switched off, as in many containers: without it every start compiles torch anew.
    """
    executable = executable or environment(session)
    kept = {"PYTHONPATH": None, "PYTHONDONTWRITEBYTECODE": None, "PYTHONUNBUFFERED": "1"}
    env = {**kept, **options.pop("env", {})}
    options = {"interrupt_timeout": 120, "terminate_timeout": 120, **options}
    try:
        session.run(executable, "-m", *arguments, env=env, **options)
    except CommandFailed as failure:
        if failure.return_code and failure.return_code > 1:
            sys.exit(failure.return_code)
        raise

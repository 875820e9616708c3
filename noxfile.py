"""Every way to run the project: README, CI and developers call the same sessions.

All sessions but `oldest` share one environment, `.nox/suite`, made on first use with uv (or with virtualenv and
pip where there is no uv) for the Python that runs nox. While neither the dependencies nor constraints.txt change,
a session starts at once and touches no network.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nox
from nox.command import CommandFailed

ROOT = Path(__file__).parent
CONSTRAINTS = ROOT / "constraints.txt"
SUITE = ["-e", ".[bench,test]", "-c", str(CONSTRAINTS)]
LOCK_HEADER = 3  # lines of constraints.txt that are ours

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "none"  # see environment()
nox.options.sessions = ["lint", "tests"]


# ---------------------------------------------------------------------------------------- helpers


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


def sweep(session: nox.Session, grid: str, *options: str) -> None:
    """Run a grid of experiments/ with these options and the arguments after `--`."""
    python(session, "bench.sweep", "--grid", f"experiments/{grid}.yaml", *options, *session.posargs)


def measure(session: nox.Session, grid: str) -> None:
    """Run a grid of costs, one task at a time whatever the machine, unless told otherwise."""
    chosen = {"--jobs", "--executor"} & {option.partition("=")[0] for option in session.posargs}
    sweep(session, grid, *([] if chosen else ["--executor", "serial"]))


# ------------------------------------------------------------------------------------ experiments


@nox.session
def reproduce_table1(session: nox.Session) -> None:
    """Table 1: inefficiency of dense inversion. Measures one thing at a time; arguments go to bench.sweep."""
    measure(session, "table1")


@nox.session
def reproduce_table3(session: nox.Session) -> None:
    """Table 3: upstream cost and data-free quantization. Arguments after `--` go to bench.sweep."""
    sweep(session, "table3")


@nox.session
def reproduce_table4(session: nox.Session) -> None:
    """Table 4: knowledge transfer without data, with its controls. Arguments after `--` go to bench.sweep.

    The embedded scale runs two tasks at a time: its models are too small to gain from threads.
    """
    chosen = {"--scale", "--jobs", "--executor"} & {option.partition("=")[0] for option in session.posargs}
    sweep(session, "kd", *([] if chosen else ["--jobs", "2"]))


@nox.session
def reproduce_deploy(session: nox.Session) -> None:
    """Quantized models as ONNX files: what they answer, how large and how fast. Measures one thing at a time."""
    measure(session, "deploy")


@nox.session
def reproduce_four_bits(session: nox.Session) -> None:
    """Four bits: image sources by quantizers by bit-widths. Arguments after `--` go to bench.sweep."""
    sweep(session, "four_bits")


@nox.session
def figures(session: nox.Session) -> None:
    """All figures, and the report. `--scale`, `--store`, `--results` after `--` go to all, the rest to bench.sweep."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name, default in (("scale", "digits"), ("store", "runs"), ("results", "results")):
        parser.add_argument(f"--{name}", default=default)
    shared, others = parser.parse_known_args(session.posargs)
    folders = [part for name, value in vars(shared).items() for part in (f"--{name}", value)]
    python(session, "bench.sweep", "--grid", "experiments/figures.yaml", *folders, *others)
    python(session, "bench.publish.figures", *folders)
    python(session, "bench.publish.report", f"{shared.results}/{shared.scale}")


@nox.session
def smoke(session: nox.Session) -> None:
    """Every kind of task once, in a minute, in a store of its own. `--executor slurm` after `--` tries a cluster."""
    folders = ("--store", "runs/smoke", "--results", "runs/smoke/results")
    python(session, "bench.sweep", "--grid", "experiments/smoke.yaml", *folders, *session.posargs)


@nox.session
def benchmark(session: nox.Session) -> None:
    """Speed and memory beside the published way, Table 1, and bench's own scale. Arguments go to bench.sweep."""
    measure(session, "cost")
    measure(session, "table1")
    python(session, "bench.cli.self_benchmark")


# ------------------------------------------------------------------------------- tests and upkeep

PARALLEL = ["-n", "auto", "--maxprocesses", "4", "--dist", "worksteal"]  # every worker holds a torch: 1 GB
ANYWHERE = "not slurm and not browser and not gpu"  # tests that need none of these
TIMM_TESTS = [
    "tests/golden",
    *(f"tests/smi/test_{name}.py" for name in ("vit", "cnn", "published", "flops", "inversion")),
]

OLDEST_TESTS = [
    "tests/laws",
    "tests/bench/datasets",
    "tests/bench/publish/figures",
    "tests/end_to_end",
    *(f"tests/smi/test_{name}.py" for name in ("images", "objectives", "transfer")),
]


@nox.session
def tests(session: nox.Session) -> None:
    """The fast tests. Arguments after `--` go to pytest."""
    python(session, "pytest", "-q", "-m", f"not slow and {ANYWHERE}", *PARALLEL, *session.posargs)


@nox.session
def tests_slow(session: nox.Session) -> None:
    """The tests marked slow: whole sweeps, kills, many model sizes."""
    python(session, "pytest", "-q", "-m", f"slow and {ANYWHERE}", *PARALLEL, *session.posargs)


@nox.session
def timm_range(session: nox.Session) -> None:
    """What depends on timm, under the oldest version supported, one between and the newest."""
    oldest_and_between = [(version, overlay(session, f"timm=={version}")) for version in ("1.0.3", "1.0.15")]
    for version, folder in [*oldest_and_between, (newest_timm(), None)]:
        session.log(f"timm {version}")
        env = {"PYTHONPATH": folder, "SMI_EXPECTED_TIMM": version}
        python(session, "pytest", "-q", "-m", f"not slow and {ANYWHERE}", *PARALLEL, *TIMM_TESTS, env=env)


@nox.session
def oldest(session: nox.Session) -> None:
    """What computes, under the oldest torch, timm and others that pyproject.toml allows (uv; Python up to 3.12)."""
    if find_uv() is None:
        session.error("uv is needed: pip install uv")
    ranges = ["-e", ".[bench,test]", "--resolution", "lowest-direct"]
    executable = environment(session, "oldest", ranges)
    what = ("-q", "-m", f"not slow and {ANYWHERE}", *PARALLEL, *TIMM_TESTS, *OLDEST_TESTS)
    python(session, "pytest", *what, *session.posargs, executable=executable)


@nox.session
def slurm_tests(session: nox.Session) -> None:
    """Sweeps on a real SLURM: the user's own if SLURM_CONF names one, else a small one started for the tests."""
    python(session, "pytest", "-q", "-m", "slurm", "tests/slurm", *session.posargs)


@nox.session
def gpu_tests(session: nox.Session) -> None:
    """What only a CUDA device can show. Fails where there is none; not part of CI."""
    python(session, "pytest", "-q", "-m", "gpu", "tests", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """How many of 200 small faults, drawn at random, the fast tests notice. An hour, not part of CI; can be stopped."""
    python(session, "tools.mutants", *session.posargs)


@nox.session
def report_check(session: nox.Session) -> None:
    """The report in a real headless browser (Debian: chromium, chromium-driver)."""
    python(session, "pytest", "-q", "-m", "browser", "tests/browser", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, format, types and the rules of who imports whom, without changing anything."""
    python(session, "ruff", "check", ".")
    python(session, "ruff", "format", "--check", ".")
    python(session, "mypy", "smi", "bench/engine")
    session.run(
        str(Path(environment(session)).with_name("lint-imports")), "--no-cache", env={"PYTHONPATH": None}
    )


@nox.session(name="format")
def format_(session: nox.Session) -> None:
    """Mend style and format in place."""
    python(session, "ruff", "check", "--fix", ".")
    python(session, "ruff", "format", ".")


@nox.session
def docs(session: nox.Session) -> None:
    """The documents and the reference as a site in .nox/site, that needs no server; its links are checked."""
    extra = nox.project.load_toml(ROOT / "pyproject.toml")["project"]["optional-dependencies"]["docs"]
    executable = environment(session, "docs", [*extra, "-c", str(CONSTRAINTS)])
    python(
        session,
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        executable=executable,
        env={"NO_MKDOCS_2_WARNING": "1"},
    )
    python(session, "tools.site.check", ".nox/site", executable=executable)


@nox.session
def lock(session: nox.Session) -> None:
    """Resolve constraints.txt anew (needs uv and the network)."""
    uv = find_uv()
    if uv is None:
        session.error("uv is needed: pip install uv")
    resolved = session.run(
        *(uv, "pip", "compile", "--universal", "--python-version", "3.11", "--all-extras"),
        *("--no-annotate", "--no-header", "--quiet", "--upgrade", "pyproject.toml"),
        silent=True,
        stderr=None,
    )
    header = CONSTRAINTS.read_text(encoding="utf-8").splitlines()[:LOCK_HEADER]
    # A line that starts with a dash would name an index of the machine that resolved.
    pins = [line for line in resolved.splitlines() if line and not line.startswith("-")]
    CONSTRAINTS.write_text("\n".join([*header, *pins]) + "\n", encoding="utf-8")

"""Every way to run the project: README, CI and developers call the same sessions.

All sessions but `oldest` share one environment, `.nox/suite`, made on first use with uv (or with virtualenv and
pip where there is no uv) for the Python that runs nox. While neither the dependencies nor constraints.txt change,
a session starts at once and touches no network.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent))  # nox does not look for modules beside its file
from tools.environments import CONSTRAINTS, ROOT, environment, find_uv, newest_timm, overlay, python

LOCK_HEADER = 3  # lines of constraints.txt that are ours

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "none"  # see environment()
nox.options.sessions = ["lint", "tests"]


# ---------------------------------------------------------------------------------------- helpers


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
    """All figures, report, gallery. `--scale`, `--store`, `--results` after `--` go to all, the rest to bench.sweep."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name, default in (("scale", "digits"), ("store", "runs"), ("results", "results")):
        parser.add_argument(f"--{name}", default=default)
    shared, others = parser.parse_known_args(session.posargs)
    folders = [part for name, value in vars(shared).items() for part in (f"--{name}", value)]
    python(session, "bench.sweep", "--grid", "experiments/figures.yaml", *folders, *others)
    python(session, "bench.publish.figures", *folders)
    python(session, "bench.publish.report", f"{shared.results}/{shared.scale}")
    if shared.results == "results":  # the project's own
        python(session, "bench.publish.gallery")


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
def chaos(session: nox.Session) -> None:
    """Sweeps under random faults, on the pool and a small SLURM. An hour, not part of CI; `-- --minutes N`."""
    python(session, "tools.chaos", *session.posargs)


@nox.session
def models_table(session: nox.Session) -> None:
    """docs/models.md anew: which of timm's ViTs run, each tried. Ten minutes, not part of CI."""
    python(session, "tools.models_table")


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

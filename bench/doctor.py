"""`python -m bench.doctor`: what this machine can run, and what to do about each lack.

Every line is one check. "ok" needs nothing; "lack" closes some door (a GPU, a cluster, ImageNet) and says how to
open it; "stop" keeps even the embedded scale from running, and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench import PACKAGES
from bench.cli.arguments import Parser, exit_code
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.engine.task import Sources

NEEDED = ("torch", "timm", "safetensors", "ruamel.yaml", *PACKAGES)
SHOWN = ("torch", "timm")  # versions that people ask for first
MODELS = ("deit_tiny_patch16_224", "deit_base_patch16_224")  # whose weights the paper's scale needs
STORE_GB = {"digits": 0.2, "paper": 5.0}  # measured, with room


@dataclass(frozen=True)
class Check:
    """One line of the report. state: "ok", "lack" or "stop"; todo: how to mend it, empty when ok."""

    state: str
    topic: str
    text: str
    todo: str = ""


def check_packages() -> Iterator[Check]:
    install = (
        "install the suite's environment with nox (README), or: pip install -e '.[bench]' -c constraints.txt"
    )
    versions, broken = [], []
    for module in NEEDED:
        try:
            importlib.import_module(module)
            if module in SHOWN:
                versions.append(f"{module} {importlib.metadata.version(module)}")
        except Exception as error:  # a package that is there but cannot be imported is a lack too
            broken.append(
                f"{module} ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
            )
    python = f"Python {sys.version.split()[0]}"
    if broken:
        yield Check("stop", "packages", f"{python}; cannot import {'; '.join(broken)}", install)
    else:
        yield Check("ok", "packages", ", ".join([python, *versions]))


def check_device() -> Iterator[Check]:
    from bench.engine.provenance import cpu_count, cpu_name

    cpu = f"{cpu_count()} cores of {cpu_name()}"
    try:
        import torch

        gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    except Exception as error:  # a driver too old shows here
        yield Check(
            "lack", "device", f"{cpu}; GPUs cannot be asked: {error}", "update the driver, or use the CPU"
        )
        return
    if gpus:
        names = ", ".join(f"{gpu.name} with {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus)
        yield Check("ok", "device", f"{names}; {cpu}")
    else:
        todo = "enough for --scale digits; run --scale paper on a machine with a GPU or through SLURM"
        yield Check("lack", "device", f"no GPU; {cpu}", todo)


def check_slurm() -> Iterator[Check]:
    from bench.engine.executors.slurm import why_not_available

    reason = why_not_available()
    if reason is None:
        yield Check("ok", "slurm", "a cluster's controller answers")
    else:
        todo = "sweeps run on this machine; for a cluster start on its login node (or check SLURM_CONF)"
        yield Check("lack", "slurm", shorten(reason), todo)


def shorten(text: str, width: int = 160) -> str:
    return text if len(text) <= width else f"{text[: width - 4]} ..."


def check_data(sources: Sources) -> Iterator[Check]:
    from bench.datasets import DATASETS, open_dataset
    from bench.datasets.places import NOT_FETCHED

    here = replace(sources, download=False)  # to look is not to fetch
    for name in dict.fromkeys([*DATASETS, *sources.data]):
        try:
            dataset = open_dataset(name, {}, here)
            found = "bundled" if name == "digits" else "in the cache"
            place = f" in {sources.data[name]}" if name in sources.data else f" ({found})"
            yield Check("ok", "data", f"{name}{place}: {', '.join(dataset.splits)}")
        except BenchError as error:
            problem, _, todo = str(error).partition("; ")
            if NOT_FETCHED in problem:
                problem, _, place = problem.replace(f" ({NOT_FETCHED})", "").partition(": ")
                todo = f"fetched on first use where there is a network; else {place}; {todo}"
            yield Check("lack", "data", problem, todo or f"give its folder with --data {name}=PATH")


def check_weights(sources: Sources) -> Iterator[Check]:
    from bench.models.weights import find_weights

    for name in MODELS:
        try:
            kind, where = find_weights(name, sources, local_only=True)
            yield Check(
                "ok", "weights", f"{name}: {where if kind == 'file' else f'{where} in the cache of the hub'}"
            )
        except BenchError as error:
            problem, _, todo = str(error).partition("; ")
            todo = (
                f"fetched on first use where there is a network; else {todo}"
                if sources.checkpoints is None
                else todo
            )
            yield Check("lack", "weights", problem, todo)


def check_folders(store: Path, results: Path) -> Iterator[Check]:
    for option, folder in (("--store", store), ("--results", results)):
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            yield Check(
                "stop", "folders", f"{folder} cannot be written", f"give another folder with {option} DIR"
            )
            continue
        free = shutil.disk_usage(existing).free / 1e9
        text = f"{folder} can be written, {free:.1f} GB free"
        if option == "--store" and free < STORE_GB["paper"]:
            state, scale = ("stop", "digits") if free < STORE_GB["digits"] else ("lack", "paper")
            todo = f"--scale {scale} wants {STORE_GB[scale]} GB: free some, or give another folder with {option} DIR"
            yield Check(state, "folders", text, todo)
        else:
            yield Check("ok", "folders", text)


def check_git() -> Iterator[Check]:
    from bench.engine.provenance import code_state

    commit = code_state()["commit"]
    if commit:
        yield Check("ok", "git", f"records will name commit {commit[:12]}")
    else:
        yield Check(
            "lack", "git", "no git, or no checkout: records cannot name the commit", "run from a git clone"
        )


def examine(arguments: argparse.Namespace) -> Iterator[Check]:
    """All checks, each as soon as it is known; those that need packages only if there are any."""
    packages = list(check_packages())
    yield from packages
    yield from check_folders(arguments.store, arguments.results)
    if any(check.state == "stop" for check in packages):
        return
    from bench.cli.options import sources_of  # needs the packages

    sources = sources_of(arguments)
    yield from check_device()
    yield from check_slurm()
    yield from check_data(sources)
    yield from check_weights(sources)
    yield from check_git()


def conclusion(checks: list[Check]) -> str:
    """Which scales run here."""
    if any(check.state == "stop" for check in checks):
        return "Nothing can run here until the lines marked stop are mended."
    missing = {check.topic for check in checks if check.state == "lack"}
    reachable = not ({"device", "slurm"} <= missing)
    imagenet = any(check.state == "ok" and check.text.startswith("imagenet") for check in checks)
    lacks = [
        *([] if reachable else ["a GPU or a cluster (or --allow-cpu and days)"]),
        *([] if imagenet else ["ImageNet"]),
        *(["weights or a network to fetch them"] if "weights" in missing else []),
    ]
    paper = f"--scale paper still wants {', '.join(lacks)}." if lacks else "--scale paper runs too."
    return f"--scale digits runs here (nox -s reproduce_table3). {paper}"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("bench.doctor", "What this machine can run, and what to do about each lack.")
    parser.add_places()
    return parser.parse_args(argv)


def report(argv: list[str] | None) -> int:
    checks = []
    for check in examine(parse(argv)):
        checks.append(check)
        print(f"{check.state:<5} {check.topic:<9} {check.text}", flush=True)
        if check.todo:
            print(f"{'':<15} -> {check.todo}", flush=True)
    print(f"\n{conclusion(checks)}")
    return 1 if any(check.state == "stop" for check in checks) else 0


def main(argv: list[str] | None = None) -> int:
    """0: the embedded scale runs here; 1: it does not; 2: bad input."""
    return exit_code(lambda: report(argv))


if __name__ == "__main__":
    sys.exit(main())

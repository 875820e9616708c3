"""A small suite of its own on the real machinery: three kinds of task that sleep, count and can be told to fail.

As a script it is the sweep's command line with this suite: `python tests/end_to_end/toy_suite.py --grid toy.yaml ...`.
It stands in no folder that has one called `bench`, which Python would take for the package.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.engine.atomic import json_bytes, write_bytes, write_text
from bench.engine.plan import CellTasks
from bench.engine.store import Store
from bench.engine.task import Job, Sources, Task
from bench.engine.worker import run_task
from bench.grid import Grid
from bench.sweep import Suite, main

GRID = """\
name: toy
title: A toy
experiment: toy
methods:
  plain: {}
  other: {}
scales:
  digits:
    axes: {model: [m0, m1], method: [plain, other], bits: [W4/A8, W8/A8], seed: [0, 1]}
    settings: {milliseconds: 20}
  paper:
    axes: {model: [m0], method: [plain], bits: [W8/A8], seed: [0]}
    expect: {cpu: {leaf: 3600}, gpu: {leaf: 60}}
"""


@dataclass(frozen=True)
class ToyKind:
    version: int
    run: Callable[[Job], Mapping[str, Any]]


def toy(job: Job) -> dict[str, Any]:
    """Add up the inputs' values and the settings, step by step, with a checkpoint after each step."""
    settings = job.task.settings
    behaviour = os.environ.get("TOY_BEHAVIOUR", "")
    if behaviour and settings.get("name") == os.environ.get("TOY_NAME"):
        misbehave(behaviour, job)
    steps = 4
    state = {"step": 0, "value": sum(read_value(folder) for folder in job.inputs.values())}
    if job.checkpoint.exists():
        state = json.loads(job.checkpoint.read_text())
    for step in range(state["step"], steps):
        stop_if_told(job)
        if pause := settings.get("milliseconds", 0):
            time.sleep(pause / 1000 / steps)
        state = {"step": step + 1, "value": state["value"] + len(str(settings)) * (step + 1)}
        write_bytes(job.checkpoint, json_bytes(state), lasting=False)
        job.progress(step + 1, steps, {"value": float(state["value"])})
    write_text(job.out / "value.txt", str(state["value"]))
    return {"value": state["value"]}


def smi_error(name: str) -> type[Exception]:
    """A named exception of the library. In a process of the toy's own only smi/errors.py is imported, for the whole
    package brings torch, which takes seconds, and these tests start hundreds of processes."""
    if "torch" not in sys.modules and "smi" not in sys.modules:
        package = types.ModuleType("smi")
        package.__path__ = list(importlib.util.find_spec("smi").submodule_search_locations)
        sys.modules["smi"] = package
    return getattr(importlib.import_module("smi.errors"), name)


def lose_gpu_once(job: Job) -> dict[str, Any]:
    """Breaks the process that runs it first, as a CUDA error would, and works in the next one."""
    mark = job.checkpoint.with_name("lost")
    if not mark.exists():
        mark.write_text(str(os.getpid()))
        lose_gpu(job)
    return {"before": int(mark.read_text()), "process": os.getpid()}


def lose_gpu(job: Job) -> dict[str, Any]:
    raise torch_error("AcceleratorError")("CUDA error: device-side assert triggered")


def torch_error(name: str) -> type[Exception]:
    """torch's own exception where torch is imported; else one in its place, for a process of the toy's own."""
    stand_in = types.SimpleNamespace(**{name: type(name, (RuntimeError,), {})})
    return getattr(sys.modules.setdefault("torch", stand_in), name)


def stop_if_told(job: Job) -> None:
    if job.should_stop():
        raise smi_error("Interrupted")("told to stop")


def misbehave(behaviour: str, job: Job) -> None:
    if behaviour == "nan":
        raise smi_error("NonFiniteLoss")("loss became nan at iteration 3")
    if behaviour == "memory":
        raise MemoryError("no memory for 12 GB")
    if behaviour == "missing":
        raise FileNotFoundError("imagenet/val is not there")
    if behaviour == "metrics":
        job.progress(1, 1, {"loss": float("nan")})
    if behaviour == "die":
        os.kill(os.getpid(), 9)
    if behaviour == "wait":
        while True:
            stop_if_told(job)
            time.sleep(0.01)
    raise RuntimeError(f"told to {behaviour}")


def where(job: Job) -> dict[str, Any]:
    """What a task sees of the worker that runs it; takes long enough for every worker to get one."""
    time.sleep(1.0)
    seen = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
    return {**seen, "process": os.getpid(), "device": job.device}


def loud(job: Job) -> dict[str, Any]:
    """Writes past Python, as a C library does."""
    os.write(1, b"to the output\n")
    os.write(2, b"to the errors\n")
    return {}


def read_value(folder: Path) -> int:
    return int((folder / "value.txt").read_text())


KINDS = {kind: ToyKind(1, toy) for kind in ("root", "middle", "leaf")}


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    pause = grid.scales[scale].settings.get("milliseconds", 0)
    entries = []
    for cell in grid.cells(scale):

        def task(kind: str, inputs: dict[str, Task], *axes: str, cell: dict[str, Any] = cell) -> Task:
            name = " ".join([kind, *(str(cell[axis]) for axis in axes)])
            settings = {"name": name, "milliseconds": pause, **{axis: cell[axis] for axis in axes}}
            return Task(kind, settings, inputs, KINDS[kind].version, name)

        root = task("root", {}, "model")
        middle = task("middle", {"root": root}, "model", "method", "seed")
        leaf = task("leaf", {"root": root, "middle": middle}, "model", "method", "seed", "bits")
        entries.append(CellTasks(cell, {"value": leaf}))
    return entries


def render(
    grid: Grid, scale: str, cells: list[CellTasks], store: Store, results: Path, footer: Mapping[str, Any]
) -> Path:
    lines = [grid.title]
    for entry in cells:
        record = store.record(entry.tasks["value"])
        lines.append(f"{sorted(entry.cell.items())} {record['metrics'] if record else 'not run'}")
    path = results / scale / f"{grid.name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n".join(lines) + "\n")
    return path


def store_with(folder: Path, tasks: Sequence[Task]) -> Store:
    """A store in which these tasks are done."""
    store = Store(folder)
    store.prepare()
    for task in tasks:
        run_task(store, task, kinds=KINDS)
    return store


SUITE = Suite(build, render, KINDS)

if __name__ == "__main__":
    sys.exit(main(suite=SUITE))

"""How bench scales: `python -m bench self_benchmark` measures it against its goals; exit code 1 if one is missed.

Grids of 100,000 cells, a table of 15,000 records, what a task costs beyond its work in an empty and in a full store,
and what a look at a thousand running tasks asks of SLURM. No model is run.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from bench import experiments, publish
from bench.cli.arguments import Parser, exit_code
from bench.engine import atomic, executors, plan, provenance
from bench.engine.executors.protocol import Context
from bench.engine.states import survey
from bench.engine.store import Store, identity, seal
from bench.engine.store.claims import BEAT
from bench.engine.store.holders import myself
from bench.engine.task import Sources, Task
from bench.grid import load

CELLS = 100_000  # of a grid, and records in a full store
RECORDS = 15_000
WORKERS = 1000  # whose heartbeats and claims are looked at
TASKS, TURNS = 100, 5  # run for the overhead of one, and how often
GRID = """
name: scale
title: A large grid
experiment: quantization
methods:
  sparse: {title: sparse, source: inversion, recipe: deepinversion, stopping: half}
  dense: {title: dense, source: inversion, recipe: deepinversion}
scales:
  digits:
    axes:
      model: [digits_vit]
      dataset: [digits]
      method: [sparse, dense]
      bits: [W4/A8, W8/A8]
      seed: [%s]
    settings:
      schedules:
        half: {at: [20], drop: 0.5}
"""
BITS = range(2, 9)
ONE_AXIS = GRID.replace("[sparse, dense]\n      bits: [W4/A8, W8/A8]", "[sparse]\n      bits: [W4/A8]")


@dataclass(frozen=True)
class Idle:
    """A kind whose work is nothing."""

    version: int = 1

    def run(self, job: Any) -> dict[str, Any]:
        figures = {"top1": 50.0, "logit_error": 0.1, "pictures": 540, "seconds": 1.0, "validation_top1": 50.0}
        return figures | {"kept": 32, "patches": 64, "sparsity": 0.5}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where a goal is missed."""
    Parser("bench self_benchmark", "Measure how bench itself scales, against its goals.").parse_args(
        arguments
    )
    goals = _Goals()
    _, seconds_once = _timed(_once)
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        print(f"device: {provenance.cpu_name()}, {provenance.cpu_count()} cores")
        goals.say("before anything, once a process: import torch and timm, read the data", seconds_once, "s")
        _measure_grids(Path(folder), goals)
        _measure_table(Path(folder), goals)
        _measure_overhead(Path(folder), goals)
        _measure_looks(Path(folder), goals)
        _measure_status(Path(folder), goals)
    if goals.missed:
        print(f"missed: {'; '.join(goals.missed)}")
    return 1 if goals.missed else 0


class _Goals:
    """Figures as they come, each held against its goal."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def say(self, what: str, value: float, unit: str, goal: float | None = None) -> None:
        """Print one figure. goal: the most that it may be."""
        judged = ""
        if goal is not None:
            reached = value <= goal
            judged = f" (goal: at most {goal:g} {unit}, {'reached' if reached else 'missed'})"
            self.missed += [] if reached else [what]
        print(f"{what}: {value:.3g} {unit}{judged}", flush=True)


def _measure_grids(folder: Path, goals: _Goals) -> None:
    for name, text, seeds in (("axes that multiply", GRID, CELLS // 4), ("one long axis", ONE_AXIS, CELLS)):
        path = folder / "scale.yaml"
        path.write_text(text % ", ".join(map(str, range(seeds))), encoding="utf-8")
        loaded, load_seconds = _timed(lambda path=path: load(path))
        cells, expand_seconds = _timed(lambda grid=loaded: experiments.build(grid, "digits", Sources()))
        planned, plan_seconds = _timed(lambda cells=cells: plan.make_plan(cells))
        what = f"read, expand and plan {len(cells)} cells, {len(planned.tasks)} tasks, {name}"
        goals.say(what, load_seconds + expand_seconds + plan_seconds, "s", 15.0)
        print(f"  of it: read {load_seconds:.2f}, expand {expand_seconds:.2f}, plan {plan_seconds:.2f}")
    goals.say("memory at most", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, "GB", 1.5)


def _measure_table(folder: Path, goals: _Goals) -> None:
    path = folder / "scale.yaml"
    path.write_text(GRID % ", ".join(map(str, range(RECORDS // 6))), encoding="utf-8")
    grid = load(path)
    cells = experiments.build(grid, "digits", Sources())
    tasks, store = plan.make_plan(cells).tasks, Store(folder / "runs")
    store.prepare()
    _fill(store, tasks)
    context = {"command": "python -m bench self_benchmark"}
    _, seconds = _timed(lambda: publish.render(grid, "digits", cells, store, folder / "results", context))
    goals.say(f"publish {len(tasks)} records and render their table", seconds, "s")
    _, seconds = _timed(lambda: publish.render_again(folder / "results"))
    goals.say(f"render it again from {len(tasks)} published records", seconds, "s", 5.0)
    _, seconds = _timed(lambda: survey(plan.make_plan(cells), store))
    goals.say(f"find {len(tasks)} tasks done in the store", seconds, "s")


def _measure_overhead(folder: Path, goals: _Goals) -> None:
    """By turns, as a machine's disk is now slower, now faster."""
    empty, full = Store(folder / "empty"), Store(folder / "full")
    for store in (empty, full):
        store.prepare()
    for number in range(CELLS):
        path = full.record_path(Task("other", {"number": number}))
        path.parent.mkdir(exist_ok=True)
        path.touch()
    seconds = {"empty": [], "full": []}
    for turn in range(-1, TURNS):  # the first one makes the folders
        for name, store in (("empty", empty), ("full", full)):
            seconds[name].append(_overhead(store, turn))
    of_empty, of_full = (1000 * min(seconds[name][1:]) for name in ("empty", "full"))
    goals.say("overhead of a task, store empty", of_empty, "ms", 15.0)
    goals.say(f"overhead of a task, store of {CELLS} records", of_full, "ms", 15.0)
    goals.say("the one beyond the other", 100 * (of_full / of_empty - 1), "%", 20.0)


def _measure_looks(folder: Path, goals: _Goals) -> None:
    """What a look at many running SLURM tasks asks of squeue, and what their heartbeats ask of the file server."""
    tools, store = folder / "tools", Store(folder / "claimed")
    tools.mkdir()
    store.prepare()
    (tools / "squeue").write_text(f"#!/bin/sh\necho x >> {tools}/calls\n", encoding="utf-8")
    (tools / "squeue").chmod(0o755)
    for number in range(WORKERS):
        holder = replace(myself(), host="elsewhere", slurm_job_id=f"1_{number}", token=f"{number:032x}")
        atomic.create(store.root / "claims" / f"idle-{number}.json", atomic.json_bytes(asdict(holder)))
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{tools}{os.pathsep}{before}"
    try:
        store.claims.held()
    finally:
        os.environ["PATH"] = before
    calls = len((tools / "calls").read_text(encoding="utf-8").split())
    goals.say(f"calls of squeue in one look at {WORKERS} running tasks", calls, "calls", 1)
    goals.say(f"file operations of {WORKERS} heartbeats, by their interval", WORKERS / BEAT, "a second", 100)


def _measure_status(folder: Path, goals: _Goals) -> None:
    """`--status` of a finished grid of CELLS quantizations, in a process of its own, from the plan that is kept."""
    path, store = folder / "scale.yaml", Store(folder / "status")
    bits = ", ".join(f"W{weights}/A{activations}" for weights in BITS for activations in BITS)
    seeds = ", ".join(map(str, range(CELLS // (2 * len(BITS) ** 2))))
    path.write_text(GRID.replace("W4/A8, W8/A8", bits) % seeds, encoding="utf-8")
    store.prepare()
    _fill(store, plan.make_plan(experiments.build(load(path), "digits", Sources())).tasks)
    look = "import sys; from bench import sweep; sweep.main(sys.argv[1:]); print('torch' in sys.modules)"
    options = ["--grid", str(path), "--store", str(store.root), "--results", str(folder / "results")]
    for way in ("--dry-run", "--status"):  # the first keeps the plan
        call = [sys.executable, "-c", look, *options, way]
        done, seconds = _timed(
            lambda call=call: subprocess.run(call, capture_output=True, text=True, check=True)
        )
    number = int(next(line for line in done.stdout.splitlines() if line.startswith("all ")).split()[1])
    goals.say(f"--status of {number} tasks", seconds, "s", 3.0)
    goals.say(
        "  of it: whether it imports torch", float(done.stdout.split()[-1] == "True"), "(yes is 1)", 0.0
    )


def _once() -> None:
    """What a process does but once, however large its grid is."""
    import_module("bench.experiments.quantization.plan")
    import_module("bench.datasets").fingerprint("digits", {}, "train", Sources())


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    value = function()
    return value, time.perf_counter() - began


def _fill(store: Store, tasks: tuple[Task, ...]) -> None:
    """A record of every task, as if all had been done."""
    frame = {**provenance.origin("cpu"), "started": "", "finished": "2000-01-01", "seconds": 1.0, "log": ""}
    for task in tasks:
        done = {
            "status": "done",
            "artifacts": {},
            "metrics": Idle().run(None),
            "error": None,
            "slurm_job_id": None,
        }
        path = store.record_path(task)
        path.parent.mkdir(exist_ok=True)
        record = atomic.json_bytes(seal({**frame, **done, **identity(task)}))
        atomic.write_bytes(path, record, lasting=False)


def _overhead(store: Store, turn: int) -> float:
    """Seconds that the serial executor spends on a task that does nothing."""
    tasks = [Task("idle", {"turn": turn, "number": number}) for number in range(TASKS)]
    context = Context(store=store, sources=Sources(), device="cpu", jobs=1, kinds={"idle": Idle()})
    executor = executors.make("serial", context)

    def work() -> None:
        executor.submit(tasks)
        while executor.poll(0.0):
            pass
        executor.close()

    _, seconds = _timed(work)
    missing = [task for task in tasks if store.record(task) is None]
    if missing:
        raise RuntimeError(f"{len(missing)} of {TASKS} tasks left no record")
    return seconds / TASKS


if __name__ == "__main__":
    sys.exit(exit_code(main))

"""A suite whose tasks count slowly, say what they see of SLURM, and can be told to die; for the tests of this folder.

`python -c "import counting; counting.command_line()" --grid ...` is the sweep's command line with this suite. Jobs
import it by name, so its folder must be on PYTHONPATH.

Axes of its grids: `first` (seeds) and `second` (numbers to add); a cell's `second` task needs its `first` task.
Settings per kind: steps, seconds (each step's), die (steps at which the task's process kills itself, once each). With
COUNTING_STATELESS in the environment `first` keeps no state.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.engine.atomic import write_json, write_text
from bench.engine.plan import CellTasks
from bench.engine.store import Store
from bench.engine.task import Job, Sources, Task
from bench.grid import Grid
from bench.sweep import Suite, main

TRACE = "COUNTING_TRACE"  # environment variable: file that gets a line for each start and end of a task
SAVE_STEPS = 5  # steps between two periodic checkpoints
MODULUS = 2**61 - 1


@dataclass(frozen=True)
class Kind:
    version: int
    run: Callable[[Job], Mapping[str, Any]]
    resumable: bool = True


def count(job: Job) -> dict[str, Any]:
    """A long computation in small steps whose every step decides the result, saved now and then and when told to."""
    settings = job.task.settings
    state = {"step": 0, "value": settings["seed"] + sum(value_of(folder) for folder in job.inputs.values())}
    if job.checkpoint.exists():
        state = json.loads(job.checkpoint.read_text())
    trace("start", job, state["step"])
    while state["step"] < settings["steps"]:
        if job.should_stop():
            write_json(job.checkpoint, state)
            trace("saved", job, state["step"])
            from smi.errors import Interrupted  # brings torch, which may take longer than SLURM waits

            raise Interrupted
        time.sleep(settings["seconds"])
        step = state["step"] + 1
        state = {"step": step, "value": next_value(state["value"], step)}
        if step % SAVE_STEPS == 0:
            write_json(job.checkpoint, state)
        if step in settings["die"] and died(job) < 1 + settings["die"].index(step):
            trace("die", job, step)
            os.kill(os.getpid(), signal.SIGKILL)
        job.progress(step, settings["steps"], {"share": step / settings["steps"]})
    write_text(job.out / "value.txt", str(state["value"]))
    trace("end", job, state["step"])
    return {"value": str(state["value"]), "steps": state["step"]}


def count_stateless(job: Job) -> dict[str, Any]:
    """The same, but it neither saves nor listens."""
    return count(replace(job, should_stop=lambda: False, checkpoint=job.out / "ignored"))


def next_value(value: int, step: int) -> int:
    return (value * 6364136223846793005 + step) % MODULUS


def expected(start: int, steps: int) -> str:
    """What a task that was never stopped finds."""
    value = start
    for step in range(1, steps + 1):
        value = next_value(value, step)
    return str(value)


def trace(what: str, job: Job, step: int) -> None:
    seen = {
        name: os.environ.get(name)
        for name in ("CUDA_VISIBLE_DEVICES", "SLURM_CPUS_PER_TASK", "SLURMD_NODENAME")
    }
    seen |= {
        "job": os.environ.get("SLURM_JOB_ID"),
        "setup": os.environ.get("COUNTING_SETUP"),
        "pid": os.getpid(),
    }
    entry = {
        "what": what,
        "task": job.task.label,
        "step": step,
        "time": time.time(),
        "device": job.device,
        **seen,
    }
    with open(os.environ[TRACE], "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def read_trace(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def died(job: Job) -> int:
    entries = read_trace(Path(os.environ[TRACE]))
    return sum(entry["what"] == "die" and entry["task"] == job.task.label for entry in entries)


def value_of(folder: Path) -> int:
    return int((folder / "value.txt").read_text())


STATELESS = Kind(1, count_stateless, resumable=False)
FIRST = STATELESS if "COUNTING_STATELESS" in os.environ else Kind(1, count)
KINDS = {"first": FIRST, "second": Kind(1, count)}


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    defaults = {"steps": 3, "seconds": 0.01, "die": []}
    settings = {kind: {**defaults, **grid.scales[scale].settings.get(kind, {})} for kind in KINDS}
    entries = []
    for cell in grid.cells(scale):
        first = Task("first", {"seed": cell["first"], **settings["first"]}, label=f"first {cell['first']}")
        label = f"second {cell['second']} of {first.label}"
        second = Task("second", {"seed": cell["second"], **settings["second"]}, {"first": first}, label=label)
        entries.append(CellTasks(cell, {"value": second}))
    return entries


def render(
    grid: Grid, scale: str, cells: list[CellTasks], store: Store, results: Path, footer: Mapping[str, Any]
) -> Path:
    records = [(entry.cell, store.record(entry.tasks["value"])) for entry in cells]
    lines = [f"{dict(cell)} {record['metrics'] if record else 'not run'}" for cell, record in records]
    path = results / f"{grid.name}.md"
    write_text(path, "\n".join([grid.title, *lines]) + "\n")
    return path


def command_line() -> None:
    sys.exit(main(suite=Suite(build, render, KINDS)))

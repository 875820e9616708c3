"""How bench itself scales: `python -m bench self_benchmark` measures a grid of 10,000 cells against its goals.

Expansion and plan of the grid, its table from 10,000 records, and what a task costs beyond its work. No model is run.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from bench import experiments, publish
from bench.cli.arguments import Parser, exit_code
from bench.engine import atomic, executors, plan, provenance
from bench.engine.executors.protocol import Context
from bench.engine.plan import CellTasks
from bench.engine.store import Store, identity, seal
from bench.engine.task import Sources, Task
from bench.grid import load

CELLS = 10_000
TASKS = 100  # run for the overhead of one
GRID = """
name: scale
title: A grid of ten thousand cells
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


@dataclass(frozen=True)
class Idle:
    """A kind whose work is nothing."""

    version: int = 1

    def run(self, job: Any) -> dict[str, Any]:
        figures = {"top1": 50.0, "logit_error": 0.1, "pictures": 540, "seconds": 1.0, "validation_top1": 50.0}
        return figures | {"kept": 32, "patches": 64, "sparsity": 0.5}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 whatever the figures are."""
    Parser("bench self_benchmark", "Measure how bench itself scales, against its goals.").parse_args(
        arguments
    )
    _, seconds_once = _timed(_once)
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        path = Path(folder, "scale.yaml")
        path.write_text(GRID % ", ".join(map(str, range(CELLS // 4))), encoding="utf-8")
        loaded, seconds_load = _timed(lambda: load(path))
        cells, seconds_expand = _timed(lambda: experiments.build(loaded, "digits", Sources()))
        planned, seconds_plan = _timed(lambda: plan.make_plan(cells))
        store = Store(Path(folder, "runs"))
        store.prepare()
        _fill(store, planned.tasks)
        results = Path(folder, "results")
        results.mkdir()
        _, seconds_render = _timed(
            lambda: publish.render(
                loaded, "digits", cells, store, results, {"command": "python -m bench self_benchmark"}
            )
        )
        overhead = _overhead(Store(Path(folder, "idle")))
    print(f"device: {provenance.cpu_name()}, {provenance.cpu_count()} cores")
    print(f"grid of {len(cells)} cells, {len(planned.tasks)} tasks:")
    _say("read, expand and plan", seconds_load + seconds_expand + seconds_plan, 2.0)
    _say(f"  of it: read and check {seconds_load:.2f}, expand {seconds_expand:.2f}, plan {seconds_plan:.2f}")
    _say(f"  before it, once a process: import torch and timm, read the data {seconds_once:.2f}")
    _say(f"render its table from {len(planned.tasks)} records", seconds_render, 5.0)
    _say(f"overhead of a task, mean of {TASKS}, serial executor", overhead, 0.05)
    return 0


def _once() -> None:
    """What a process does but once, however large its grid is."""
    import_module("bench.experiments.quantization.plan")
    import_module("bench.datasets").fingerprint("digits", {}, "train", Sources())


def _say(what: str, seconds: float | None = None, goal: float | None = None) -> None:
    if seconds is None or goal is None:
        print(what)
    else:
        print(
            f"{what}: {seconds:.3f} s (goal: under {goal:g} s, {'reached' if seconds < goal else 'missed'})"
        )


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
        atomic.write_json(store.record_path(task), seal({**frame, **done, **identity(task)}))


def _overhead(store: Store) -> float:
    """Seconds that the serial executor spends on a task that does nothing."""
    store.prepare()
    tasks = [Task("idle", {"number": number}) for number in range(TASKS)]
    planned = plan.make_plan([CellTasks({}, {"idle": task}) for task in tasks])
    kinds = {"idle": Idle()}
    context = Context(
        store=store, sources=Sources(), device="cpu", jobs=1, resources={}, kinds=kinds, notify=None
    )
    executor = executors.make("serial", context)

    def work() -> None:
        executor.submit(list(planned.tasks))
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

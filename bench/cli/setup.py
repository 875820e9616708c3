"""What a sweep's options and its grid decide before anything runs: tasks, device, executor, and where results go."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.cli import decode_cache
from bench.cli.options import command_line, sources_of
from bench.cli.tensorboard import TensorBoard
from bench.engine import devices, executors, plan
from bench.engine.executors.protocol import Context, Update
from bench.engine.failures import is_a
from bench.engine.plan import CellTasks
from bench.engine.states import Estimates, State
from bench.engine.store import Store, probe_writable
from bench.engine.task import Sources, Task
from bench.errors import BenchError, StoreError
from bench.grid import DEFAULT_SCALE, Grid, load
from bench.text import one_line

Cells = list[CellTasks]


@dataclass(frozen=True)
class Suite:
    """What a sweep runs: how cells become tasks, what each kind of task does, how records become a table."""

    build: Callable[[Grid, str, Sources], Cells]
    render: Callable[[Grid, str, Cells, Store, Path, dict[str, Any]], Path]
    kinds: Mapping[str, Any] | None = None  # None: bench.tasks.KINDS


class Setup:
    """One run of the command, as far as its options and its grid decide it."""

    plan: plan.Plan  # once the cells are built

    def __init__(self, options: argparse.Namespace, suite: Suite) -> None:
        self.options, self.suite = options, suite
        self.grid = load(options.grid)
        default = DEFAULT_SCALE if DEFAULT_SCALE in self.grid.scales else next(iter(self.grid.scales))
        self.scale = options.scale or default
        self.spec = self.grid.scale(self.scale)
        self.store = Store(options.store)
        self.store.check()

    def sources(self) -> Sources:
        """What the options name, and what the grid does: folders of modules, and pictures."""
        given = sources_of(self.options)
        return replace(given, include=(*given.include, *self.grid.folders), files=self.grid.files)

    def build(self, sources: Sources) -> Cells:
        """Every cell with its tasks. Raises BenchError for whatever the grid or its sources get wrong."""
        try:
            cells = self.suite.build(self.grid, self.scale, sources)
        except Exception as error:
            if is_a(error, "smi.errors", "SmiError"):
                raise BenchError(f"{self.grid.path}: {error}") from error
            raise
        for missing in (sources.placeholders or {}).values():
            line = f"note: a placeholder stands here, so tasks that need it show as to do: {missing}"
            print(one_line(line, 600), file=sys.stderr)
        kinds = self.suite.kinds or _own_kinds()
        named = [("resources", kind) for kind in self.spec.resources]
        named += [("expect", machine, kind) for machine, seconds in self.spec.expect for kind in seconds]
        for *place, kind in named:
            if kind not in kinds:  # a typing error would go without the resources meant for it
                location = ("scales", self.scale, *place, kind)
                raise self.grid.error(location, f"unknown kind of task {kind!r}", kinds)
        return cells

    def render(self, cells: Cells) -> Path:
        """Write the grid's table from the records that there are."""
        command = command_line(self.options, self.scale)
        results = self.options.results
        try:
            return self.suite.render(self.grid, self.scale, cells, self.store, results, {"command": command})
        except OSError as error:
            raise _results_error(results, error) from error

    def executor_name(self) -> tuple[str, str]:
        """Which executor runs the tasks, and why that one."""
        options = self.options
        return executors.choose(options.executor, self.scale, options.jobs, options.device)

    def device(self, executor: str) -> str:
        """The device that tasks run on. Raises BenchError for one that is not there."""
        if executor != "slurm":
            return devices.resolve(self.options.device)
        # A job uses its own GPU where its kind asks for one, whatever this machine has.
        if self.options.device:
            devices.check_kind(self.options.device)
        return self.options.device or "cuda"

    def on_gpu(self, executor: str) -> bool:
        """Whether tasks are expected to run on a GPU, for estimates of their time."""
        if executor == "slurm":
            return any(
                self.spec.resources[kind].gpus for kind in self.plan.kinds if kind in self.spec.resources
            )
        asked = self.options.device
        return asked.startswith("cuda") if asked else devices.gpu_count() > 0

    def estimates(self, states: dict[str, State], on_gpu: bool) -> Estimates:
        """How long the plan's tasks take."""
        return Estimates(self.plan, states, self.store, self.spec.expect, on_gpu)

    def _engine(self) -> str:
        """How the scale wants its inversions run (bench.tasks.engines); `build` has checked it."""
        return self.spec.settings.get("images", {}).get("engine", Sources.engine)

    def decode_cache(self, sources: Sources, todo: list[Task], prepare: bool) -> None:
        """What --decode-cache asks for, said. Raises BenchError where it cannot be."""
        if sources.decode_cache is not None:
            self.say(decode_cache.look(todo, sources, prepare))

    def log(self) -> TensorBoard | None:
        """What --tensorboard asks for. Raises BenchError where it cannot be."""
        folder = self.options.tensorboard
        return None if folder is None else TensorBoard(folder, self.store.record)

    def context(
        self, sources: Sources, device: str, notify: Callable[[Update], object] | None = None
    ) -> Context:
        """What an executor is given. notify: called with each piece of news."""
        return Context(
            store=self.store,
            sources=replace(sources, engine=self._engine()),
            device=device,
            jobs=self.options.jobs,
            resources=self.spec.resources,
            kinds=self.suite.kinds,
            notify=notify,
        )

    def say(self, line: str) -> None:
        """Print a line, unless --quiet."""
        if not self.options.quiet:
            print(line, flush=True)


def _own_kinds() -> Mapping[str, Any]:
    from bench.tasks import KINDS  # heavy (torch): not before the grid has been read

    return KINDS


def check_results(results: Path) -> None:
    """The results folder can be written. Raises BenchError before any work is done."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        probe_writable(results)
    except OSError as error:
        raise _results_error(results, error) from error


def _results_error(results: Path, error: OSError) -> StoreError:
    reason = one_line(error.strerror or str(error))
    return StoreError(
        f"the results folder {results} cannot be written: {reason}; give another with --results"
    )

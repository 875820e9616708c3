"""`python -m bench.sweep --grid experiments/table3.yaml`: from a grid to its table.

Reads the grid, plans its tasks, has an executor run what the store does not hold yet, and renders the table from the
records. May be stopped at any moment and run again: what is finished is never done twice.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import experiments, publish
from bench.cli import decode_cache, kept_plans, status, watch
from bench.cli.options import command_line, parse, sources_of
from bench.cli.progress import Board, View, make_view
from bench.cli.tensorboard import TensorBoard
from bench.engine import devices, executors, include, plan
from bench.engine.executors.protocol import BLOCKED, FAILED, Context, Executor, Update
from bench.engine.failures import is_a
from bench.engine.plan import CellTasks
from bench.engine.signals import STOPPED, Stopper
from bench.engine.states import Estimates, State, survey, to_do
from bench.engine.store import Store, probe_writable
from bench.engine.task import Sources, Task
from bench.errors import BenchError, StoreError
from bench.grid import DEFAULT_SCALE, PAPER_SCALE, Grid, load
from bench.text import estimate, one_line, plural

Cells = list[CellTasks]
OK, FAILURES, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Suite:
    """What a sweep runs: how cells become tasks, what each kind of task does, how records become a table."""

    build: Callable[[Grid, str, Sources], Cells]
    render: Callable[[Grid, str, Cells, Store, Path, dict[str, Any]], Path]
    kinds: Mapping[str, Any] | None = None  # None: bench.tasks.KINDS


PAPER_SUITE = Suite(experiments.build, publish.render)  # this project's own


def main(arguments: Sequence[str] | None = None, suite: Suite | None = None) -> int:
    """The command line. Returns the exit code: 0 all done, 1 something failed, 2 bad input, 130 stopped."""
    try:
        return Sweep(parse(arguments), suite or PAPER_SUITE).run()
    except BenchError as error:
        print(f"error: {one_line(str(error), 2000)}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:  # e.g. `| head`; what is done is in the store
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURES
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        line = include.explained(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return BAD_INPUT


class Sweep:
    """One run of the command: everything that its options and its grid decide."""

    def __init__(self, options: argparse.Namespace, suite: Suite) -> None:
        self.options, self.suite = options, suite
        self.grid = load(options.grid)
        default = DEFAULT_SCALE if DEFAULT_SCALE in self.grid.scales else next(iter(self.grid.scales))
        self.scale = options.scale or default
        self.spec = self.grid.scale(self.scale)
        self.store = Store(options.store)
        self.store.check()

    def run(self) -> int:
        options = self.options
        self._say(status.scale_line(self.grid, self.scale))
        sources = self._sources()
        kept = kept_plans.KeptPlans(self.grid, self.scale, self.store, sources, self.suite.build)
        if options.status and (known := kept.recall()) is not None:
            # What --watch shows of the last record is not among what is kept of it.
            self.plan, self.seen = self._chosen(known), kept.seen(trusted=not options.watch)
            return self._keep_showing() if options.watch else self._show(self._survey(), sources)
        include.load(sources.include)
        cells = self._build(sources)
        whole = plan.make_plan(cells)
        self.plan, self.seen = self._chosen(whole), kept.seen(trusted=False)
        if self.store.exists:
            kept.keep(whole)
        states = self._survey()
        if options.watch:
            return self._keep_showing()
        if options.dry_run or options.status:
            return self._show(states, sources)
        if options.cancel:
            return self._cancel(states, sources)

        check_results(options.results)
        if options.retry_failed:
            states = self._forget_failed(states)
        for line in status.damages(self.plan, states):
            self._say(line)
        board = None
        stopped = ""
        began = time.monotonic()
        if to_do(self.plan, states):
            board, stopped = self._carry_out(states, sources, lambda: kept.keep(whole))
            if options.detach and not stopped:
                return OK
            states = self._survey()
        return self._conclude(cells, states, board, time.monotonic() - began, stopped)

    # ---- the three ways to look and not run

    def _chosen(self, whole: plan.Plan) -> plan.Plan:
        """What --only asks for."""
        return plan.only(whole, self.options.only) if self.options.only else whole

    def _survey(self) -> dict[str, State]:
        states = survey(self.plan, self.store, self.seen)
        if self.store.exists:
            self.seen.save()
        return states

    def _show(self, states: dict[str, State], sources: Sources) -> int:
        """--dry-run and --status."""
        name, why = self._executor_name()
        workers = executors.workers(name, self.options.jobs, self.options.device)
        self._device(name)  # a device that the run would refuse
        if self.options.dry_run:
            self._say(f"executor: {name} ({why})")
            self._decode_cache(sources, to_do(self.plan, states), prepare=False)
        print(status.overview(self.plan, states, self._estimates(states, self._on_gpu(name)), workers))
        more = status.listing if self.options.status else status.details
        text = more(self.plan, states, self.store)
        if text:
            print(text)
        for line in executors.queued(self.store, self.plan.tasks):
            print(line)
        return OK

    def _keep_showing(self) -> int:
        """--status --watch."""
        name, _ = self._executor_name()
        workers = executors.workers(name, self.options.jobs, self.options.device)
        on_gpu = self._on_gpu(name)

        def look() -> tuple[dict[str, State], Estimates]:
            states = self._survey()
            return states, self._estimates(states, on_gpu)

        watch.watch(self.plan, look, workers)
        return OK

    def _cancel(self, states: dict[str, State], sources: Sources) -> int:
        queued = executors.queued(self.store, self.plan.tasks)
        name = "slurm" if queued else self._executor_name()[0]
        executor = executors.make(name, self._context(sources, "cpu"))
        print(executor.cancel(to_do(self.plan, states)))
        executor.close()
        return OK

    # ---- running

    def _carry_out(
        self, states: dict[str, State], sources: Sources, prepared: Callable[[], None]
    ) -> tuple[Board, str]:
        """Run what is to do; (board, "" or how it was stopped). prepared: called once the store can be written."""
        options = self.options
        name, why = self._executor_name()
        on_gpu = self._on_gpu(name)
        estimates = self._estimates(states, on_gpu)
        todo = to_do(self.plan, states)
        workers = executors.workers(name, options.jobs, options.device)
        time_needed = estimate(*estimates.total(todo, workers))
        if self.scale == PAPER_SCALE and not on_gpu and not options.allow_cpu:
            raise BenchError(
                f"{self.grid.name} at the paper's scale is meant for a GPU, and this machine shows none: "
                f"{plural(len(todo), 'task')} to do, {time_needed} on its CPU; give --allow-cpu to run all the same"
            )
        device = self._device(name)
        view = make_view(options.quiet)
        board = Board(self.plan, states, estimates, workers, view, self.store.record)
        log = self._log()
        heard = [board.update, *([log.update] if log else [])]
        context = self._context(sources, device, lambda news: [hear(news) for hear in heard])
        executor = executors.make(name, context)
        if options.detach and not executor.detaches:
            raise BenchError(
                f"--detach: the {name} executor runs tasks in this process; only slurm can go on without it"
            )
        self.store.prepare()
        prepared()
        self._decode_cache(sources, todo, prepare=True)
        self._say(f"executor: {name} ({why}); store: {self.store.root}")
        self._say(f"{plural(len(self.plan.tasks), 'task')}, {len(todo)} to do: {time_needed}")
        try:
            return board, self._watch(executor, board, view, todo)
        finally:
            executor.close()
            if log:
                log.close()

    def _watch(self, executor: Executor, board: Board, view: View, todo: list[Task]) -> str:
        with Stopper(executor.stop) as stopper:
            executor.submit(todo)
            if self.options.detach:
                self._say(
                    f"{plural(len(todo), 'task')} submitted; the same command without --detach watches them"
                )
                return ""
            view.open(board)
            try:
                while executor.poll(POLL_SECONDS) and not (stopper.caught and executor.detaches):
                    pass
            finally:
                view.close()
        return stopper.message if stopper.caught else ""

    def _conclude(
        self, cells: Cells, states: dict[str, State], board: Board | None, seconds: float, stopped: str
    ) -> int:
        """Table, causes of failures, exit code."""
        table = self._render(cells)
        if not self.options.quiet and not stopped:
            print(f"\n{table.read_text(encoding='utf-8')}")
        problems = status.causes(self.plan, states, self.store)
        for line in problems:
            print(line, file=sys.stderr)
        self._say(status.summary(self.plan, states, board.made if board else 0, seconds))
        self._say(f"table: {table}")
        if stopped:
            print(stopped, file=sys.stderr)
            return INTERRUPTED
        left = to_do(self.plan, states)
        if left:
            text = f"{plural(len(left), 'task')} left undone (cancelled?); the same command runs them"
            print(text, file=sys.stderr)
        failed = any(state.status in (FAILED, BLOCKED) for state in states.values())
        return FAILURES if failed or left else OK

    # ---- pieces

    def _sources(self) -> Sources:
        """What the options name, and what the grid does: folders of modules, and pictures."""
        given = sources_of(self.options)
        return replace(given, include=(*given.include, *self.grid.folders), files=self.grid.files)

    def _build(self, sources: Sources) -> Cells:
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

    def _render(self, cells: Cells) -> Path:
        """Write the grid's table from the records that there are."""
        command = command_line(self.options, self.scale)
        results = self.options.results
        try:
            return self.suite.render(self.grid, self.scale, cells, self.store, results, {"command": command})
        except OSError as error:
            raise _results_error(results, error) from error

    def _executor_name(self) -> tuple[str, str]:
        options = self.options
        return executors.choose(options.executor, self.scale, options.jobs, options.device)

    def _device(self, executor: str) -> str:
        """The device that tasks run on. Raises BenchError for one that is not there."""
        if executor != "slurm":
            return devices.resolve(self.options.device)
        # A job uses its own GPU where its kind asks for one, whatever this machine has.
        if self.options.device:
            devices.check_kind(self.options.device)
        return self.options.device or "cuda"

    def _on_gpu(self, executor: str) -> bool:
        if executor == "slurm":
            return any(
                self.spec.resources[kind].gpus for kind in self.plan.kinds if kind in self.spec.resources
            )
        asked = self.options.device
        return asked.startswith("cuda") if asked else devices.gpu_count() > 0

    def _estimates(self, states: dict[str, State], on_gpu: bool) -> Estimates:
        return Estimates(self.plan, states, self.store, self.spec.expect, on_gpu)

    def _engine(self) -> str:
        """How the scale wants its inversions run (bench.tasks.engines); `_build` has checked it."""
        return self.spec.settings.get("images", {}).get("engine", Sources.engine)

    def _decode_cache(self, sources: Sources, todo: list[Task], prepare: bool) -> None:
        """What --decode-cache asks for, said. Raises BenchError where it cannot be."""
        if sources.decode_cache is not None:
            self._say(decode_cache.look(todo, sources, prepare))

    def _log(self) -> TensorBoard | None:
        """What --tensorboard asks for. Raises BenchError where it cannot be."""
        folder = self.options.tensorboard
        return None if folder is None else TensorBoard(folder, self.store.record)

    def _context(
        self, sources: Sources, device: str, notify: Callable[[Update], object] | None = None
    ) -> Context:
        return Context(
            store=self.store,
            sources=replace(sources, engine=self._engine()),
            device=device,
            jobs=self.options.jobs,
            resources=self.spec.resources,
            kinds=self.suite.kinds,
            notify=notify,
        )

    def _forget_failed(self, states: dict[str, State]) -> dict[str, State]:
        failed = [task for task in self.plan.tasks if states[task.name].status == FAILED]
        for task in failed:
            self.store.forget(task)
        if failed:
            self._say(f"{plural(len(failed), 'failed task')} will be tried again")
        return self._survey()

    def _say(self, line: str) -> None:
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


if __name__ == "__main__":
    sys.exit(main())

"""`python -m bench.sweep --grid experiments/table3.yaml`: from a grid to its table.

Reads the grid, plans its tasks, has an executor run what the store does not hold yet, and renders the table from the
records. May be stopped at any moment and run again: what is finished is never done twice.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence

from bench import experiments, publish
from bench.cli import kept_plans, status, watch
from bench.cli.options import parse
from bench.cli.progress import Board, View, make_view
from bench.cli.setup import Cells, Setup, Suite, check_results
from bench.engine import executors, include, plan
from bench.engine.executors.protocol import BLOCKED, FAILED, Executor
from bench.engine.signals import STOPPED, Stopper
from bench.engine.states import Estimates, State, survey, to_do
from bench.engine.task import Sources, Task
from bench.errors import BenchError
from bench.grid import PAPER_SCALE
from bench.text import estimate, one_line, plural

OK, FAILURES, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
POLL_SECONDS = 0.25
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


class Sweep(Setup):
    """One run of the command: look, or run what is to do and write the table."""

    def run(self) -> int:
        options = self.options
        self.say(status.scale_line(self.grid, self.scale))
        sources = self.sources()
        kept = kept_plans.KeptPlans(self.grid, self.scale, self.store, sources, self.suite.build)
        if options.status and (known := kept.recall()) is not None:
            # What --watch shows of the last record is not among what is kept of it.
            self.plan, self.seen = self._chosen(known), kept.seen(trusted=not options.watch)
            return self._keep_showing() if options.watch else self._show(self._survey(), sources)
        include.load(sources.include)
        cells = self.build(sources)
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
            self.say(line)
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
        name, why = self.executor_name()
        workers = executors.workers(name, self.options.jobs, self.options.device)
        self.device(name)  # a device that the run would refuse
        if self.options.dry_run:
            self.say(f"executor: {name} ({why})")
            self.decode_cache(sources, to_do(self.plan, states), prepare=False)
        print(status.overview(self.plan, states, self.estimates(states, self.on_gpu(name)), workers))
        more = status.listing if self.options.status else status.details
        text = more(self.plan, states, self.store)
        if text:
            print(text)
        for line in executors.queued(self.store, self.plan.tasks):
            print(line)
        return OK

    def _keep_showing(self) -> int:
        """--status --watch."""
        name, _ = self.executor_name()
        workers = executors.workers(name, self.options.jobs, self.options.device)
        on_gpu = self.on_gpu(name)

        def look() -> tuple[dict[str, State], Estimates]:
            states = self._survey()
            return states, self.estimates(states, on_gpu)

        watch.watch(self.plan, look, workers)
        return OK

    def _cancel(self, states: dict[str, State], sources: Sources) -> int:
        queued = executors.queued(self.store, self.plan.tasks)
        name = "slurm" if queued else self.executor_name()[0]
        executor = executors.make(name, self.context(sources, "cpu"))
        print(executor.cancel(to_do(self.plan, states)))
        executor.close()
        return OK

    # ---- running

    def _carry_out(
        self, states: dict[str, State], sources: Sources, prepared: Callable[[], None]
    ) -> tuple[Board, str]:
        """Run what is to do; (board, "" or how it was stopped). prepared: called once the store can be written."""
        options = self.options
        name, why = self.executor_name()
        on_gpu = self.on_gpu(name)
        estimates = self.estimates(states, on_gpu)
        todo = to_do(self.plan, states)
        workers = executors.workers(name, options.jobs, options.device)
        time_needed = estimate(*estimates.total(todo, workers))
        if self.scale == PAPER_SCALE and not on_gpu and not options.allow_cpu:
            raise BenchError(
                f"{self.grid.name} at the paper's scale is meant for a GPU, and this machine shows none: "
                f"{plural(len(todo), 'task')} to do, {time_needed} on its CPU; give --allow-cpu to run all the same"
            )
        device = self.device(name)
        view = make_view(options.quiet)
        board = Board(self.plan, states, estimates, workers, view, self.store.record)
        log = self.log()
        heard = [board.update, *([log.update] if log else [])]
        context = self.context(sources, device, lambda news: [hear(news) for hear in heard])
        executor = executors.make(name, context)
        if options.detach and not executor.detaches:
            raise BenchError(
                f"--detach: the {name} executor runs tasks in this process; only slurm can go on without it"
            )
        self.store.prepare()
        prepared()
        self.decode_cache(sources, todo, prepare=True)
        self.say(f"executor: {name} ({why}); store: {self.store.root}")
        self.say(f"{plural(len(self.plan.tasks), 'task')}, {len(todo)} to do: {time_needed}")
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
                self.say(
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
        table = self.render(cells)
        if not self.options.quiet and not stopped:
            print(f"\n{table.read_text(encoding='utf-8')}")
        problems = status.causes(self.plan, states, self.store)
        for line in problems:
            print(line, file=sys.stderr)
        self.say(status.summary(self.plan, states, board.made if board else 0, seconds))
        self.say(f"table: {table}")
        if stopped:
            print(stopped, file=sys.stderr)
            return INTERRUPTED
        left = to_do(self.plan, states)
        if left:
            text = f"{plural(len(left), 'task')} left undone (cancelled?); the same command runs them"
            print(text, file=sys.stderr)
        failed = any(state.status in (FAILED, BLOCKED) for state in states.values())
        return FAILURES if failed or left else OK

    def _forget_failed(self, states: dict[str, State]) -> dict[str, State]:
        failed = [task for task in self.plan.tasks if states[task.name].status == FAILED]
        for task in failed:
            self.store.forget(task)
        if failed:
            self.say(f"{plural(len(failed), 'failed task')} will be tried again")
        return self._survey()


if __name__ == "__main__":
    sys.exit(main())

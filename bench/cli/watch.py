"""`--status --watch`: how a sweep stands, from any terminal, again and again until nothing runs any more.

Reads the store alone, so it sees what other processes and other machines do, and disturbs none of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TextIO

from bench.cli.pace import found, pace
from bench.engine.executors.protocol import BLOCKED, DONE, FAILED, RUNNING, WAITING
from bench.engine.plan import Plan
from bench.engine.states import Estimates, State, counts, to_do
from bench.engine.store import Record
from bench.text import estimate, plural

SECONDS = 2.0  # between two looks
PLAIN_SECONDS = 15.0  # where no terminal shows it: between two tables, each a few lines more
HEAD = ("kind", "done", "running", "failed", "blocked", "to do", "pace", "time left")
STATES = (DONE, RUNNING, FAILED, BLOCKED, WAITING)  # those that HEAD counts, in its order
SHOWN = 8  # running tasks named below the table

Look = Callable[[], tuple[Mapping[str, State], Estimates]]


def watch(plan: Plan, look: Look, workers: int, stream: TextIO | None = None) -> None:
    """Show the plan's state until every task is settled, redrawn in place on a terminal. Ctrl-C ends it."""
    stream = stream or sys.stdout
    live = stream.isatty()
    if live:
        _watch_live(plan, look, workers, stream)
        return
    said = ""
    while True:
        states, estimates = look()
        text = as_text(plan, states, estimates, workers)
        if text != said:
            print(text, end="\n\n", file=stream, flush=True)
            said = text
        if not to_do(plan, states):
            return
        time.sleep(PLAIN_SECONDS)


def _watch_live(plan: Plan, look: Look, workers: int, stream: TextIO) -> None:
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(file=stream), auto_refresh=False) as live:
        while True:
            states, estimates = look()
            live.update(as_table(plan, states, estimates, workers), refresh=True)
            if not to_do(plan, states):
                return
            time.sleep(SECONDS)


def as_table(plan: Plan, states: Mapping[str, State], estimates: Estimates, workers: int) -> Any:
    """For a terminal (rich): a row a kind, then what runs now and what came to an end last."""
    from rich.console import Group
    from rich.text import Text

    table = grid(title(plan, states, estimates, workers))
    for row in rows(plan, states, estimates, workers):
        table.add_row(*row)
    return Group(table, *(Text(line) for line in now(plan, states)))


def grid(title: str) -> Any:
    """An empty rich table with the columns of HEAD."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    for name in HEAD:
        table.add_column(name, justify="left" if name == HEAD[0] else "right", no_wrap=True)
    return table


def as_text(plan: Plan, states: Mapping[str, State], estimates: Estimates, workers: int) -> str:
    """The same in plain lines."""
    lines = [HEAD, *rows(plan, states, estimates, workers)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEAD))]
    made = [title(plan, states, estimates, workers)]
    for line in lines:
        cells = [
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        made.append("  ".join(cells).rstrip())
    return "\n".join([*made, *now(plan, states)])


def title(plan: Plan, states: Mapping[str, State], estimates: Estimates, workers: int) -> str:
    left = to_do(plan, states)
    settled = len(plan.tasks) - len(left)
    needed = f", {estimate(*estimates.total(left, workers))} to do" if left else ""
    return f"{settled} of {plural(len(plan.tasks), 'task')} settled{needed}"


def rows(
    plan: Plan, states: Mapping[str, State], estimates: Estimates, workers: int, at: float | None = None
) -> list[Sequence[str]]:
    """One for each kind of task, as HEAD names its cells. at: now, in seconds since the epoch."""
    at = time.time() if at is None else at
    made = []
    for kind in plan.kinds:
        tasks = [task for task in plan.tasks if task.kind == kind]
        count = counts(tasks, states)
        left = [task for task in tasks if states[task.name].status in (WAITING, RUNNING)]
        spans = [_span(record) for task in tasks if (record := states[task.name].record) is not None]
        needed = estimate(*estimates.total(left, workers)) if left else "-"
        made.append((kind, *(str(count[name]) for name in STATES), pace(spans, at), needed))
    return made


def now(plan: Plan, states: Mapping[str, State]) -> list[str]:
    """A line for each of the first running tasks, with how far it is and where, and one for each kind's last done."""
    running = [task for task in plan.tasks if states[task.name].status == RUNNING]
    lines = [f"running {task.label or task.name}: {states[task.name].detail}" for task in running[:SHOWN]]
    lines += [f"and {len(running) - SHOWN} more"] if len(running) > SHOWN else []
    for kind in plan.kinds:
        done = [
            state.record
            for task in plan.tasks
            if task.kind == kind and (state := states[task.name]).status == DONE and state.record is not None
        ]
        if done:
            lines.append(finished(max(done, key=lambda record: record["finished"])))
    return lines


def finished(record: Record) -> str:
    """`last evaluate digits_vit W4/A8: top1 97.5`."""
    said = found(record)
    name = record["label"] or f"{record['kind']}-{record['key']}"
    return f"last {name}: {said}" if said else f"last {name}"


def _span(record: Record) -> tuple[float, float]:
    ends = (datetime.fromisoformat(record[name]).timestamp() for name in ("started", "finished"))
    began, ended = ends
    return began, ended

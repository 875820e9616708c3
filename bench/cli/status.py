"""What `--dry-run`, `--status` and the end of a sweep print."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

from bench.engine.executors.protocol import BLOCKED, DONE, FAILED, RUNNING, WAITING
from bench.engine.plan import Plan
from bench.engine.states import Estimates, State, counts, to_do
from bench.engine.store import Store
from bench.engine.task import Task
from bench.grid import Grid
from bench.text import duration, estimate, plural

COLUMNS = (DONE, RUNNING, FAILED, BLOCKED, WAITING)
TITLES = {WAITING: "to do"}
SHOWN = 12  # tasks listed under one cause
LISTED = 200  # tasks of which --status lists every one


def scale_line(grid: Grid, scale: str) -> str:
    """Which scale is run, and how to run the others."""
    others = [f"--scale {other}" for other in grid.scales if other != scale]
    noun = "other" if len(others) == 1 else "others"
    rest = f"; for the {noun}: {', '.join(others)}" if others else " (its only one)"
    return f"{grid.name} at the scale {scale!r}{rest}"


def overview(plan: Plan, states: Mapping[str, State], estimates: Estimates, workers: int) -> str:
    """Tasks by kind and state, and how long the rest will take."""
    rows = [["kind", "tasks", *(TITLES.get(column, column) for column in COLUMNS), "time to do"]]
    for kind in plan.kinds:
        tasks = [task for task in plan.tasks if task.kind == kind]
        count = counts(tasks, states)
        left = [task for task in tasks if states[task.name].status in (WAITING, RUNNING)]
        seconds, unknown = estimates.total(left)
        needed = estimate(seconds, unknown) if left else "-"
        rows.append([kind, str(len(tasks)), *(str(count[column]) for column in COLUMNS), needed])
    count = counts(plan.tasks, states)
    left = to_do(plan, states)
    seconds, unknown = estimates.total(left, workers)
    needed = estimate(seconds, unknown) if left else "-"
    if left and workers > 1:
        needed += f" with {workers} workers"
    rows.append(["all", str(len(plan.tasks)), *(str(count[column]) for column in COLUMNS), needed])
    return _columns(rows)


def listing(plan: Plan, states: Mapping[str, State], store: Store) -> str:
    """Each task's state, age and log, then `details`."""
    return "\n".join(["", *_listing(plan, states, store), "", details(plan, states, store)]).rstrip()


def details(plan: Plan, states: Mapping[str, State], store: Store) -> str:
    """What runs now and where, what is damaged, and the causes of what failed."""
    lines = [
        f"running {task.label or task.name}: {states[task.name].detail}"
        for task in plan.tasks
        if states[task.name].status == RUNNING
    ]
    return "\n".join([*lines, *damages(plan, states), *causes(plan, states, store)])


def _listing(plan: Plan, states: Mapping[str, State], store: Store) -> list[str]:
    """One line for each task; of a long plan, only for those that run or have failed: the rest is counted above."""
    tasks = plan.tasks
    if len(tasks) > LISTED:
        tasks = tuple(task for task in tasks if states[task.name].status in (RUNNING, FAILED))
    rows = [["task", "state", "age", "log"]]
    for task in tasks:
        state, log = states[task.name], store.log_path(task)
        seconds = _age(task, state, store)
        age = "-" if seconds is None else duration(seconds)
        name = TITLES.get(state.status, state.status)
        rows.append([task.label or task.name, name, age, str(log) if log.is_file() else "-"])
    rest = len(plan.tasks) - len(tasks)
    more = [f"and {plural(rest, 'task')} more; --only PATTERN lists those that fit"] if rest else []
    return [*(_columns(rows).splitlines() if tasks else []), *more]


def _age(task: Task, state: State, store: Store) -> float | None:
    """Seconds since a task ended or, while it runs, since it was begun; None for one that waits."""
    if state.record is not None:
        return time.time() - datetime.fromisoformat(state.record["finished"]).timestamp()
    begun = store.claims.begun(task.name) if state.status == RUNNING else None
    return None if begun is None else time.time() - begun


def damages(plan: Plan, states: Mapping[str, State]) -> list[str]:
    """One line for each damaged record or artifact."""
    return [
        f"damaged: {states[task.name].damage}; {task.label or task.name} will be made again"
        for task in plan.tasks
        if states[task.name].damage
    ]


def causes(plan: Plan, states: Mapping[str, State], store: Store) -> list[str]:
    """Failed tasks by cause with their logs, and what they block."""
    failed: dict[str, list[str]] = defaultdict(list)
    for task in plan.tasks:
        state = states[task.name]
        if state.status == FAILED and state.record is not None:
            error = state.record["error"]
            log = store.root / state.record["log"]
            failed[error["cause"]].append(f"{task.label or task.name}: {error['message']} (log: {log})")
    lines = []
    for cause, entries in failed.items():
        lines.append(f"{plural(len(entries), 'task')} failed: {cause}")
        lines += [f"  {entry}" for entry in entries[:SHOWN]]
        lines += [f"  and {len(entries) - SHOWN} more"] if len(entries) > SHOWN else []
    blocked = defaultdict(int)
    for state in states.values():
        if state.status == BLOCKED:
            blocked[state.detail] += 1
    lines += [f"{plural(number, 'task')} {detail}" for detail, number in blocked.items()]
    if failed:
        lines.append("to try the failed tasks again, give --retry-failed")
    return lines


def summary(plan: Plan, states: Mapping[str, State], made: int, seconds: float) -> str:
    """The last line of a sweep."""
    count = counts(plan.tasks, states)
    parts = [f"{count[name]} {TITLES.get(name, name)}" for name in COLUMNS if count[name]]
    ended = f"{made} brought to an end now, in {duration(seconds)}"
    return f"{plural(len(plan.tasks), 'task')}: {', '.join(parts)}; {ended}"


def _columns(rows: list[list[str]]) -> str:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index in (0, len(widths) - 1) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)

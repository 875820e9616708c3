"""The plan: every task that the cells of a grid need, once, in an order in which inputs come first."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.engine.task import Task
from bench.errors import BenchError


@dataclass(frozen=True)
class CellTasks:
    """One cell of a grid and the tasks whose records fill its columns in the table."""

    cell: Mapping[str, Any]
    tasks: Mapping[str, Task]


@dataclass(frozen=True)
class Plan:
    """Tasks without repeats; every task comes after its inputs."""

    tasks: tuple[Task, ...]

    @cached_property
    def stages(self) -> tuple[tuple[Task, ...], ...]:
        """The tasks by depth: those of a stage need only earlier stages, so they can all run at once."""
        depths: dict[str, int] = {}
        stages: list[list[Task]] = []
        for task in self.tasks:
            depth = 1 + max((depths[needed.name] for needed in task.inputs.values()), default=-1)
            depths[task.name] = depth
            stages[depth:depth] = [[]] if depth == len(stages) else []
            stages[depth].append(task)
        return tuple(tuple(stage) for stage in stages)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of task in the order of their first stage."""
        return tuple(dict.fromkeys(task.kind for stage in self.stages for task in stage))


def make_plan(cells: Iterable[CellTasks]) -> Plan:
    """All tasks that the cells reach, each once, inputs first, otherwise in the order of the cells.

    Raises BenchError when one key stands for two different tasks, which a correct `Task.key` never does.
    """
    return closure(task for entry in cells for task in entry.tasks.values())


def closure(leaves: Iterable[Task]) -> Plan:
    """The plan of some tasks and everything they need."""
    ordered: dict[str, Task] = {}
    for leaf in leaves:
        stack: list[tuple[Task, bool]] = [(leaf, False)]
        while stack:
            task, inputs_done = stack.pop()
            if task.name in ordered:
                continue
            if inputs_done:
                ordered[task.name] = task
            else:
                stack.append((task, True))
                stack.extend((needed, False) for needed in reversed(list(task.inputs.values())))
    return Plan(tuple(ordered.values()))


def only(plan: Plan, pattern: str) -> Plan:
    """The tasks whose label, name or kind fits a shell pattern, and what they need.

    A pattern without `*`, `?` or `[` fits when it is part of one of them. Raises BenchError if nothing fits.
    """
    fits = _matcher(pattern)
    chosen = [task for task in plan.tasks if fits(task)]
    if not chosen:
        labels = list(dict.fromkeys(task.label or task.name for task in plan.tasks))
        shown = "; ".join(labels[:5]) + ("; ..." if len(labels) > 5 else "")
        raise BenchError(f"--only {pattern!r} fits none of the {len(labels)} tasks; there are: {shown}")
    return closure(chosen)


def _matcher(pattern: str) -> Callable[[Task], bool]:
    if not any(char in pattern for char in "*?["):
        pattern = f"*{pattern}*"
    return lambda task: any(fnmatch.fnmatchcase(text, pattern) for text in (task.label, task.name, task.kind))

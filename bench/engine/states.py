"""Where a plan stands, read from the store: what is done, runs, failed or is to do, and how long that will take."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from bench.engine.executors.protocol import BLOCKED, DONE, FAILED, RUNNING, WAITING
from bench.engine.plan import Plan
from bench.engine.store import Finding, Record, Store, failure_of
from bench.engine.store.plans import Seen, uncollected
from bench.engine.task import Task, likeness
from bench.grid import Expect


@dataclass(frozen=True)
class State:
    """One task's. status: "done", "failed", "blocked", "running" or "waiting" (to do)."""

    status: str
    record: Record | None = None
    detail: str = ""  # cause of failure, what blocks it, who runs it
    damage: str = ""  # what of an earlier result is damaged and will be made again


@uncollected()
def survey(plan: Plan, store: Store, seen: Seen | None = None) -> dict[str, State]:
    """The state of every task of a plan, by name. Reads records, artifacts' sizes and times, and claims.

    seen: what was found before and is unchanged is not read again.
    """
    held = store.claims.held()
    states: dict[str, State] = {}
    if seen is not None:
        seen.look()
    for task in plan.tasks:
        finding = store.find(task) if seen is None else _look(task, store, seen)
        if finding.status == "done":
            state = State(DONE, finding.record)
        elif task.name in held:
            state = State(RUNNING, detail=_doing(store, task, held[task.name]))
        elif finding.status == "failed":
            state = State(FAILED, finding.record, failure_of(finding))
        elif (blocker := _blocker(task, states)) is not None:
            state = State(BLOCKED, detail=f"blocked by {blocker.label or blocker.name}")
        else:
            state = State(WAITING, damage=finding.damage)
        states[task.name] = state
    return states


def _blocker(task: Task, states: Mapping[str, State]) -> Task | None:
    return next((i for i in task.inputs.values() if states[i.name].status in (FAILED, BLOCKED)), None)


def _look(task: Task, store: Store, seen: Seen) -> Finding:
    known = seen.record(task)
    if known is not None:
        return Finding(known["status"], known)
    finding = store.find(task) if seen.is_recorded(task) else Finding("missing")
    if finding.record is not None and finding.status in ("done", "failed"):
        seen.learn(task, finding.record)
    return finding


def to_do(plan: Plan, states: Mapping[str, State]) -> list[Task]:
    """What a sweep has to see through: neither done, failed nor blocked. Includes what another process runs now."""
    return [task for task in plan.tasks if states[task.name].status in (WAITING, RUNNING)]


def counts(tasks: Sequence[Task], states: Mapping[str, State]) -> Counter[str]:
    return Counter(states[task.name].status for task in tasks)


class Estimates:
    """Seconds that tasks take: from records that differ in the seed only; else what whoever planned them knows; else
    of the same kind in this plan; else what the grid expects, or, where it says nothing, the store's other records of
    the kind."""

    def __init__(
        self, plan: Plan, states: Mapping[str, State], store: Store, expect: Expect, on_gpu: bool
    ) -> None:
        self._alike: dict[str, list[float]] = defaultdict(list)
        self._kind: dict[str, list[float]] = defaultdict(list)
        self._device = "gpu" if on_gpu else "cpu"
        self._expected = dict(expect.gpu if on_gpu else expect.cpu)
        records: dict[str, list[Record]] = {kind: [] for kind in plan.kinds}
        for task in plan.tasks:
            record = states[task.name].record
            if record is not None and self._counts(record):
                records[task.kind].append(record)
        for kind, found in records.items():
            for record in found:
                self._learn(kind, _likeness_of(record, kind), record["seconds"])
            if not found:
                others = [record for record in store.records(kind) if self._counts(record)]
                for record in others:
                    self._alike[_likeness_of(record, kind)].append(record["seconds"])
                if others:
                    self._expected.setdefault(kind, fmean(record["seconds"] for record in others))

    def learn(self, kind: str, settings: Mapping[str, Any], seconds: float) -> None:
        """Take one more finished task into account."""
        self._learn(kind, likeness(kind, settings), seconds)

    def _learn(self, kind: str, alike: str, seconds: float) -> None:
        self._alike[alike].append(seconds)
        self._kind[kind].append(seconds)

    def seconds(self, task: Task) -> float | None:
        """Expected seconds of one task; None if nothing is known of its kind."""
        alike = self._alike.get(task.likeness)
        if not alike and task.expected is not None:
            return task.expected
        known = alike or self._kind.get(task.kind)
        return fmean(known) if known else self._expected.get(task.kind)

    def total(self, tasks: Sequence[Task], workers: int = 1) -> tuple[float, int]:
        """(seconds for all that is known, number of tasks of which nothing is known), shared by `workers`."""
        each = [self.seconds(task) for task in tasks]
        known = [seconds for seconds in each if seconds is not None]
        return shared(known, workers), len(each) - len(known)

    def _counts(self, record: Record) -> bool:
        return record["status"] == "done" and record.get("device_type") == self._device


def shared(seconds: Sequence[float], workers: int) -> float:
    """Seconds until `workers` have seen through tasks that take so long each."""
    return max(sum(seconds) / max(1, workers), max(seconds, default=0.0))


def _likeness_of(record: Record, kind: str) -> str:
    """Of a record, or of what an earlier look has kept of it."""
    return record["likeness"] if "likeness" in record else likeness(kind, record["settings"])


def _doing(store: Store, task: Task, holder: Any) -> str:
    said = store.claims.progress(task.name, holder)
    share = f"{said['done']}/{said['total']} " if said.get("total") else ""
    return f"{share}on {holder.place}"

"""Which task to run next: the order that the serial executor and the local pool share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.engine.executors.protocol import BLOCKED, DONE, FAILED, HELD, STOPPED, WAITING, Update
from bench.engine.store import Store
from bench.engine.task import Task
from bench.engine.worker import Outcome

AGAIN = 1.0  # seconds between looks at a task that another process runs


class Queue:
    """Tasks to run, in order, each handed out once its inputs are settled. Knows no clock: the caller passes `now`."""

    def __init__(self, store: Store, notify: Callable[[Update], None]) -> None:
        self._store, self._notify = store, notify
        self._waiting: dict[str, Task] = {}  # in the order in which they are to run
        self._settled: dict[str, str] = {}  # name -> status, of everything known to be settled
        self._not_before: dict[str, float] = {}
        self._running: set[str] = set()
        self._stopped = False

    def add(self, tasks: Sequence[Task]) -> None:
        self._waiting.update((task.name, task) for task in tasks)

    def stop(self) -> None:
        """Hand out nothing more."""
        self._stopped = True

    @property
    def stopped(self) -> bool:
        return self._stopped

    @property
    def left(self) -> list[Task]:
        """What waits to run, in order."""
        return list(self._waiting.values())

    @property
    def empty(self) -> bool:
        """Nothing runs and nothing is left to hand out."""
        return not self._running and (self._stopped or not self._waiting)

    def next(self, now: float) -> Task | None:
        """The first task that can run now; None if there is none, for the moment or for good."""
        if self._stopped:
            return None
        for task in list(self._waiting.values()):
            blocker = self._blocker(task)
            if blocker is not None:
                self.settle(task, Outcome(BLOCKED, blocker.label or blocker.name), now)
            elif self._not_before.get(task.name, 0.0) <= now and self._inputs_done(task):
                del self._waiting[task.name]
                self._running.add(task.name)
                return task
        return None

    def settle(self, task: Task, outcome: Outcome, now: float) -> None:
        """Take note of how a run of a task ended; what could not be run yet comes back later."""
        self._running.discard(task.name)
        self._waiting.pop(task.name, None)
        if outcome.status in (DONE, FAILED, BLOCKED):
            self._settled[task.name] = outcome.status
        elif outcome.status in (HELD, WAITING):
            self._not_before[task.name] = now + (0.0 if outcome.damaged else AGAIN)
            self._waiting[task.name] = task
            for needed in task.inputs.values():
                self._settled.pop(needed.name, None)  # to be looked up again
            if outcome.damaged is not None:
                self._first(outcome.damaged)
        elif outcome.status == STOPPED:
            self._stopped = True
        self._notify(Update(task, outcome.status, outcome.detail))

    def put_back(self, task: Task) -> None:
        """The worker of a running task died, or can run nothing more: the task is to run again."""
        self._running.discard(task.name)
        self._first(task)

    def _first(self, task: Task) -> None:
        if task.name not in self._running and task.name not in self._waiting:
            self._waiting = {task.name: task, **self._waiting}

    def _blocker(self, task: Task) -> Task | None:
        for needed in task.inputs.values():
            if self._settled.get(needed.name) in (FAILED, BLOCKED):
                return needed
        return None

    def _inputs_done(self, task: Task) -> bool:
        """Every input is done; inputs that are nobody's here are looked up in the store."""
        ready = True
        for needed in task.inputs.values():
            if self._settled.get(needed.name) == DONE:
                continue
            if needed.name in self._running or needed.name in self._waiting:
                ready = False
                continue
            finding = self._store.find(needed)
            if finding.status in (DONE, FAILED):
                self._settled[needed.name] = finding.status
                ready = ready and finding.status == DONE
            else:
                self._first(needed)
                ready = False
        return ready

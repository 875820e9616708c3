"""What a sweep asks of whatever runs its tasks. The methods that matter: submit, poll, stop.

The truth about a task is its record in the store; an executor only brings tasks there and tells, through
`Context.notify`, what it sees on the way. So an executor that dies, or never says anything, loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench.engine.store import Store
from bench.engine.task import Sources, Task
from bench.grid import Resources

# States of a task, as shown to people. "waiting" is also: queued.
DONE, FAILED, BLOCKED, WAITING, HELD, STOPPED = "done", "failed", "blocked", "waiting", "held", "stopped"
RUNNING = "running"
BROKEN = "broken"  # of a run: its process can run nothing more, and the task is to run again in another
SETTLED = frozenset({DONE, FAILED, BLOCKED})


@dataclass(frozen=True)
class Update:
    """News of one task. status is one of the states above; the figures are those of a running task."""

    task: Task
    status: str
    detail: str = ""  # why it failed, what blocks it, who holds it
    done: int = 0
    total: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """All that an executor needs to run tasks. What is sent to other processes is picklable but for `notify`."""

    store: Store
    sources: Sources
    device: str  # "cpu", "cuda", "cuda:1", ...
    jobs: int | None = None  # workers of the local pool; None: one per GPU, else one
    resources: Mapping[str, Resources] = field(default_factory=dict)  # by task kind, from the grid's scale
    kinds: Mapping[str, Any] | None = None  # None: bench.tasks.KINDS
    notify: Callable[[Update], object] | None = None  # told of every change; None: nobody listens

    def tell(self, update: Update) -> None:
        if self.notify is not None:
            self.notify(update)


class Executor(Protocol):
    """Brings tasks to their records."""

    detaches: bool  # whether submitted tasks go on without this process (--detach)

    def submit(self, tasks: Sequence[Task]) -> None:
        """Take tasks to run, inputs before what needs them. An input that is not among them is done, or another
        process is at it. May return before anything has run. Called once. Raises BenchError if refused."""

    def poll(self, seconds: float) -> bool:
        """Let work go on for about `seconds` (serial: for one task), notifying; false once every task submitted is
        settled or stopped. Raises StoreError when the store cannot be written."""

    def stop(self) -> str:
        """Told to stop (Ctrl-C, SIGTERM): start nothing more here, let what runs here save its state. Must be safe
        in a signal handler. Returns one line for the user: what still runs, and how to cancel it ("" if nothing)."""

    def cancel(self, tasks: Sequence[Task]) -> str:
        """Cancel what an earlier sweep left running of these tasks (--cancel). One line on what was done."""

    def close(self) -> None:
        """Leave nothing behind in this process."""

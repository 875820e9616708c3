"""What runs inside a SLURM job: submitit calls `SlurmTask`, which runs the task in a process of its own and waits.

Two processes, because submitit's signal handler runs between two bytecodes of the main thread and ends the process
when it returns: the task would have no chance to reach the end of an iteration and save its state. So the handler
tells the task's process to stop, waits until it has saved, and only then has the job requeued.

task_process.py is the other process. This module must stay light (no torch): the waiting process has no need of it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.engine import provenance, signals
from bench.engine.executors.slurm import client
from bench.engine.executors.slurm.ledger import LOGS, Ledger, Submission
from bench.engine.failures import DIED, MINUTES
from bench.engine.slurm_tools import job_id
from bench.engine.store import Store
from bench.engine.task import Sources
from bench.errors import StoreError

TOKEN = "BENCH_SUBMISSION"  # environment variable: which submission a job belongs to
TRIES = 3  # processes that may die while running the task, before that counts as its failure
AT_ONCE = 60.0  # seconds after a job's start within which its first task has begun
LOOK = 0.1  # seconds between two looks at the task's process
SIGNAL_LAG = 3.0  # seconds within which USR2 reaches this process after it has reached the task's
# Exit codes of the task's process. Anything else means that it died; so, in effect, does the last: it lost its GPU.
SETTLED_EXIT, STORE_EXIT, STOPPED_EXIT, BROKEN_EXIT = 0, 74, 75, 76
EARLY = 75.0  # seconds by which SLURM may send its signal before it is due


def device_of(submission: Submission) -> str:
    """The device of a job's tasks: its GPU where it has one, unless the sweep was told to use the CPU."""
    return "cuda" if submission.gpus and submission.device != "cpu" else "cpu"


@dataclass(frozen=True)
class Order:
    """What the task's process is told, through its standard input."""

    store: str
    tasks: tuple[str, ...]  # one after the other
    sources: Sources
    device: str
    notes: Mapping[str, Any]
    parent: int
    kinds: Mapping[str, Any] | None
    death: str = ""  # not to run the task but to record that it failed so,
    cause: str = DIED  # for this reason


class SlurmTask:
    """The callable that is submitted, the same for every task of an array. Holds paths only.

    kinds: as in `Context`; for the project's own kinds None, so nothing but the store's path is pickled.
    """

    def __init__(self, store: str, kinds: Mapping[str, Any] | None = None) -> None:
        self.store, self.kinds = store, kinds
        self._child: _Child | None = None
        self._submission: Submission | None = None
        self._names: tuple[str, ...] = ()
        self._patience = 5.0
        self._began = 0.0

    def __call__(self) -> str:
        # The environment, not the pickle, says which tasks these are: where job numbers have begun anew, submitit may
        # load what an older job of the same number left behind.
        submission = Ledger(Store(self.store)).read(os.environ[TOKEN])
        self._began, self._submission, self._patience = time.time(), submission, submission.patience
        self._names = names = submission.tasks_of(int(os.environ.get("SLURM_ARRAY_TASK_ID", "0")))
        deaths: Counter[str] = Counter()
        while True:
            self._child = _Child(self._order(submission, names), submission.cpus)
            code = self._child.wait()
            if code == SETTLED_EXIT:
                return names[-1]
            if code == STORE_EXIT:
                raise StoreError(f"the store {self.store} cannot be written; see the lines above")
            if code == STOPPED_EXIT:
                return self._after_stop(names[-1])
            name = self._last_begun()
            how = "of a GPU error, see the log" if code == BROKEN_EXIT else signals.how_it_died(code)
            print(f"the process that ran {name} died {how}", file=sys.stderr, flush=True)
            deaths[name] += 1
            if deaths[name] > TRIES:
                return name  # not for the task's sake; the sweep sees what is left
            if deaths[name] == TRIES:  # it is recorded as failed, and the next process leaves it alone
                death = f"{TRIES} processes that ran it in SLURM died, the last one {how}"
                self._child = _Child(self._order(submission, (name,), death), submission.cpus)
                self._child.wait()

    def checkpoint(self) -> Any:
        """submitit's hook, called in its handler of SIGUSR2: the state is saved when this returns.

        None, which ends the job for good, where its limit has come and will come again: see `_give_up`.
        """
        from submitit.helpers import DelayedSubmission

        if self._child is not None:
            self._child.stop(self._patience)
            if self._child.code != SETTLED_EXIT and self._give_up():
                return None
        return DelayedSubmission(type(self)(self.store, self.kinds))

    def _give_up(self) -> bool:
        """Whether the job's time limit has come and the task has nothing to go on from: then it has failed."""
        submission = self._submission
        assert submission is not None, "set before there is a child"
        limit = 60 * submission.minutes - (submission.patience + EARLY)
        if not submission.minutes or time.time() - self._began < limit:
            return False  # preempted
        store = Store(self.store)
        task = Ledger(store).read_task(self._last_begun())
        attempts = store.attempts(task)
        if attempts.all and attempts.all[-1]["started"] > self._began + AT_ONCE:
            return False  # others of the job had its time: next time it begins at once
        attempts.timed_out()
        if not attempts.hopeless():
            return False
        self._child = _Child(
            self._order(submission, (task.name,), too_short(task.kind, submission.minutes), MINUTES), 1
        )
        self._child.wait()
        return True

    def _last_begun(self) -> str:
        """The task that a process which has ended was at: attempts are kept of none that is done or has failed."""
        store, ledger = Store(self.store), Ledger(Store(self.store))
        found = {name: store.attempts(ledger.read_task(name)).all for name in self._names}
        begun = {name: attempts[-1]["started"] for name, attempts in found.items() if attempts}
        return max(begun, key=lambda name: begun[name], default=self._names[0])

    def _after_stop(self, name: str) -> str:
        """The task has saved its state because a signal told it to; find out what SLURM wants.

        USR2 (time-out, preemption) reaches this process too, and submitit's handler ends it. A bare SIGTERM is the
        end of the job when it was cancelled or requeued from outside; when SLURM still has it running, it is the
        notice of a preemption, to be treated like USR2.
        """
        time.sleep(SIGNAL_LAG)
        job = job_id(os.environ) or ""
        found = (client.queue([job]) or {}).get(job)
        if found is not None and found.state == "RUNNING":
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(self._patience)
        return name

    def _order(
        self, submission: Submission, names: tuple[str, ...], death: str = "", cause: str = DIED
    ) -> Order:
        return Order(
            store=self.store,
            tasks=names,
            sources=submission.unpacked_sources(),
            device=device_of(submission),
            notes=notes(submission),
            parent=os.getpid(),
            kinds=self.kinds,
            death=death,
            cause=cause,
        )


def too_short(kind: str, minutes: int) -> str:
    """What the record says of a task that its job's limit ended with no state saved to go on from."""
    return (
        f"needs more minutes: it had {minutes} and saved no state to go on from; raise `minutes` of {kind} in the "
        f"grid's resources, then --retry-failed"
    )


def notes(submission: Submission) -> dict[str, Any]:
    """What the record says about the job, and whether the code is still what it was at submission."""
    now = provenance.code_state()
    known = now["commit"] is not None and submission.code.get("commit") is not None
    seen = {"partition": "SLURM_JOB_PARTITION", "node": "SLURMD_NODENAME", "gpus": "CUDA_VISIBLE_DEVICES"}
    return {
        "slurm": {
            "log": f"{LOGS}/{job_id(os.environ)}_0_log.out",
            "restarts": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            **{name: os.environ.get(variable) for name, variable in seen.items()},
        },
        "submitted_code": dict(submission.code),
        "code_changed": now != submission.code if known else None,
    }


class _Child:
    """The process that runs the task. No locks: a signal handler may come between any two steps."""

    def __init__(self, order: Order, threads: int) -> None:
        self.code: int | None = None
        self._told = False
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        with signals.held():
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", "bench.engine.executors.slurm.task_process"],
                stdin=subprocess.PIPE,
                cwd=provenance.ROOT,
                env=environment,
            )
            self.pid = process.pid
            process.returncode = 0  # ours to wait for, not Popen's
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(pickle.dumps(order))

    def wait(self) -> int:
        while not self._ended():
            time.sleep(LOOK)
        return int(self.code or 0)

    def stop(self, patience: float) -> None:
        """Have it save its state and end; after `patience` seconds the last periodic checkpoint has to do."""
        deadline = time.monotonic() + patience
        while not self._ended():
            if not self._told:
                self._told = True
                self._send(signal.SIGTERM)
            elif time.monotonic() >= deadline:
                self._send(signal.SIGKILL)
            time.sleep(LOOK)

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _ended(self) -> bool:
        if self.code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # the handler came between the interrupted caller's wait and its note
                self.code = STOPPED_EXIT
            else:
                if pid:
                    self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

"""The SLURM executor: submits what is neither done nor in SLURM, and watches until everything is settled.

What is done is read from the store's records, what is in SLURM from the ledger and the queue; no state lives in this
process alone, so it may be killed at any moment, and any number of sweeps may share one store.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from bench.engine.executors.protocol import (
    BLOCKED,
    DONE,
    FAILED,
    HELD,
    RUNNING,
    STOPPED,
    WAITING,
    Context,
    Update,
)
from bench.engine.executors.slurm import arrays, client
from bench.engine.executors.slurm.client import Entry
from bench.engine.executors.slurm.ledger import Ledger, Submission
from bench.engine.executors.slurm.view import (
    Place,
    View,
    end_states,
    failed_for_time,
    forget_settled,
    look_at_slurm,
)
from bench.engine.store import Store, failure_of
from bench.engine.task import Task
from bench.engine.worker import record_death
from bench.errors import BenchError
from bench.text import plural

LOCK = "slurm-submission"  # claim held while submitting, so that two sweeps never submit one task twice
PATIENCE = 120.0  # seconds to wait for another sweep that submits, or for SLURM to answer
LIMIT = "the site takes no more jobs of this user for now"
TRIES = 4  # jobs that may end without a record of their task, before that counts as its failure
SURE_SECONDS = 4.0  # a job must look ended for so long: after a node failure SLURM requeues moments later
LOOK_SECONDS = ((1.0, 1000), (15.0, 100))  # between looks, busy and quiet: so long, or tasks by so many
SHOWN_JOBS = 8


class SlurmExecutor:
    """Runs tasks as SLURM jobs."""

    detaches = True

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store: Store = context.store
        self._ledger = Ledger(context.store)
        self._tasks: dict[str, Task] = {}  # all that this sweep sees through, inputs first
        self._settled: dict[str, str] = {}
        self._place: dict[str, Place] = {}  # where each task was seen last
        self._gone: dict[str, float] = {}  # since when its job looks ended
        self._tries: Counter[str] = Counter()
        self._stopped = False
        self._silent = False
        self._pause = 1.0
        self._next_look = 0.0

    # ---- the protocol

    def submit(self, tasks: Sequence[Task]) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._ledger.prepare()
        deadline = time.monotonic() + PATIENCE
        while not self._stopped:
            self._read_records()
            with self._lock() as locked:
                view = look_at_slurm(self._ledger) if locked else None
                if view is not None:
                    self._follow(view)
                    why = self._submit_missing(view)
                else:
                    why = "SLURM does not answer (squeue)" if locked else "another sweep is submitting"
            if not why:
                return
            if why == LIMIT:
                text = f"{LIMIT}: this command submits the rest as these end, or the same one later"
                print(text, file=sys.stderr)
                return
            if time.monotonic() > deadline:
                raise BenchError(f"nothing more can be submitted: {why}; the same command goes on from here")
            time.sleep(1.0)

    def poll(self, seconds: float) -> bool:
        time.sleep(seconds)
        if time.monotonic() >= self._next_look:
            before = (len(self._settled), len(self._place))
            self._look()
            changed = before != (len(self._settled), len(self._place)) or bool(self._gone)
            # Polite to the controller: the more there is to ask about, the less often.
            soonest, latest = (max(seconds, len(self._tasks) / per) for seconds, per in LOOK_SECONDS)
            self._pause = soonest if changed else min(latest, self._pause * 1.2)
            self._next_look = time.monotonic() + self._pause
        return not self._stopped and len(self._settled) < len(self._tasks)

    def stop(self) -> str:
        self._stopped = True
        jobs = sorted({place.job.partition("_")[0] for place in self._place.values()})
        shown = ", ".join([*jobs[:SHOWN_JOBS], *(["..."] if len(jobs) > SHOWN_JOBS else [])])
        which = f" (jobs {shown})" if jobs else ""
        then = "the same command watches it again, with --cancel it cancels it"
        return f"what was submitted goes on in SLURM{which}; {then}"

    def cancel(self, tasks: Sequence[Task]) -> str:
        names = {task.name for task in tasks}
        view = look_at_slurm(self._ledger)
        if view is None:
            raise BenchError("SLURM does not answer (squeue); nothing was cancelled")
        found = {name: place.job for name, place in view.active.items() if name in names}
        if not found:
            return "nothing of this grid is in SLURM"
        # An array that is ours alone goes as a whole: one of its waiting tasks cancelled alone leaves no trace.
        whole = {s.job for s in view.submissions if s.job and not (set(s.tasks) & set(view.active)) - names}
        jobs = {job.partition("_")[0] if job.partition("_")[0] in whole else job for job in found.values()}
        refusal = client.cancel(jobs)
        if refusal is not None:
            raise BenchError(f"scancel: {refusal}")
        return f"{plural(len(found), 'task')} cancelled in SLURM; those that ran save their state first"

    def close(self) -> None:
        pass

    # ---- looking

    def _open(self) -> dict[str, Task]:
        return {name: task for name, task in self._tasks.items() if name not in self._settled}

    def _look(self) -> None:
        self._read_records()
        if not self._open():
            view = look_at_slurm(self._ledger)
            if view is not None:
                forget_settled(self._ledger, view)
            return
        view = look_at_slurm(self._ledger)
        self._hear_silence(view is None)
        if view is None:
            return
        self._follow(view)
        forget_settled(self._ledger, view)
        if self._to_submit(view):
            with self._lock() as locked:
                fresh = look_at_slurm(self._ledger) if locked else None
                if fresh is not None:
                    self._read_records()
                    self._follow(fresh)
                    self._submit_missing(fresh)

    def _read_records(self) -> None:
        """Settle what has a record, and what can never run because an input failed or was cancelled."""
        recorded = self._store.recorded()  # one look at the folders instead of one for each of many tasks
        for name, task in list(self._open().items()):
            finding = self._store.find(task) if name in recorded else None
            if finding is not None and finding.status in (DONE, FAILED):
                self._settle(task, finding.status, failure_of(finding) if finding.status == FAILED else "")
                continue
            for needed in task.inputs.values():
                fate = self._settled.get(needed.name)
                if fate in (FAILED, BLOCKED):
                    self._settle(task, BLOCKED, f"blocked by {needed.label or needed.name}")
                elif fate == STOPPED and name not in self._place:
                    self._settle(task, STOPPED, f"{needed.label or needed.name} was cancelled")

    def _follow(self, view: View) -> None:
        """Note and tell where each open task is; judge those whose job has ended without a record."""
        ended: list[Task] = []
        for name, task in list(self._open().items()):
            place = view.active.get(name)
            if place is not None:
                self._place[name] = place
                self._gone.pop(name, None)
                self._tell_place(task, place)
            elif name in self._place:
                since = self._gone.setdefault(name, time.monotonic())
                if time.monotonic() - since >= SURE_SECONDS:
                    ended.append(task)
        states = end_states([self._place[task.name].job for task in ended], view) if ended else {}
        held = self._store.claims.held() if ended else {}
        for task in ended:
            self._judge(task, states[self._place[task.name].job], task.name in held)

    def _tell_place(self, task: Task, place: Place) -> None:
        if place.entry.state != "RUNNING":
            reason = f", {place.entry.reason}" if place.entry.reason else ""
            self._context.tell(Update(task, WAITING, f"SLURM job {place.job}{reason}"))
            return
        holder = self._store.claims.holder(task.name)
        said = self._store.claims.progress(task.name, holder) if holder is not None else {}
        figures = said.get("figures", {})
        done, total = said.get("done", 0), said.get("total", 0)
        self._context.tell(Update(task, RUNNING, f"SLURM job {place.job}", done, total, figures))

    def _judge(self, task: Task, state: str, held: bool) -> None:
        """A job has ended so and its task has no record: cancelled, to be tried again, or to be given up."""
        job = self._place.pop(task.name).job
        del self._gone[task.name]
        if self._store.find(task).status in (DONE, FAILED):
            return  # the record came between the two looks
        if state == "CANCELLED":
            self._settle(task, STOPPED, f"SLURM job {job} was cancelled")
            return
        if held:
            return  # another sweep's process has it
        if not all(self._store.find(needed).status == DONE for needed in task.inputs.values()):
            return  # it ran before its inputs were there, and left again
        if state == "TIMEOUT" and failed_for_time(self._store, task, self._context.resources):
            return
        self._tries[task.name] += 1
        if self._tries[task.name] >= TRIES:
            logs = self._ledger.logs / f"{job}_0_log.err"
            detail = (
                f"{TRIES} SLURM jobs ended without finishing it, the last one ({job}) as {state}; see {logs}"
            )
            record_death(self._store, task, detail)

    def _hear_silence(self, silent: bool) -> None:
        if silent != self._silent:
            line = "SLURM does not answer; jobs go on, waiting for it" if silent else "SLURM answers again"
            print(line, file=sys.stderr, flush=True)
        self._silent = silent

    def _settle(self, task: Task, status: str, detail: str = "") -> None:
        self._settled[task.name] = status
        self._place.pop(task.name, None)
        self._gone.pop(task.name, None)
        self._context.tell(Update(task, status, detail))

    # ---- submitting

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        with self._store.errors():
            claim = self._store.claims.take(LOCK)
        try:
            yield claim is not None
        finally:
            if claim is not None:
                claim.release()

    def _to_submit(self, view: View) -> list[Task]:
        """Tasks that are neither done nor in SLURM nor run by someone else, and whose inputs are, or will be."""
        coming = set(view.active)
        held = self._store.claims.held()
        chosen: list[Task] = []
        for name, task in list(self._tasks.items()):
            if name in self._settled or name in coming or name in self._place:
                continue
            waited_for = [needed for needed in task.inputs.values() if needed.name not in coming]
            if not all(self._is_done(needed) for needed in waited_for):
                continue
            if name in held:
                self._context.tell(Update(task, HELD, held[name].place))
                continue
            chosen.append(task)
            coming.add(name)
        return chosen

    def _is_done(self, needed: Task) -> bool:
        """Whether an input is done and intact. One that was done and has been lost or damaged is to be made again."""
        if needed.name in self._tasks and self._settled.get(needed.name) != DONE:
            return False
        finding = self._store.find(needed)
        if finding.status not in (DONE, FAILED):
            self._settled.pop(needed.name, None)
            self._tasks = {needed.name: needed, **self._tasks}
        return finding.status == DONE

    def _submit_missing(self, view: View) -> str:
        """Under the lock: submit what `_to_submit` names, early stages first. Returns what kept it from the rest."""
        why = ""
        where = {name: place.job for name, place in view.active.items()}
        ours: list[Submission] = []
        pending = arrays.cut(self._to_submit(view), self._context.resources, client.max_array_size())
        while pending and not self._stopped:
            tasks, resources = pending.pop(0)
            if not all(self._is_coming(needed, where) for task in tasks for needed in task.inputs.values()):
                continue  # what they need was not accepted; a later look comes back to them
            array = arrays.Array(tasks, resources, arrays.jobs_before(tasks, where))
            try:
                submission = arrays.submit(array, self._context, self._ledger)
            except arrays.LimitReached:
                why, half = LIMIT, len(tasks) // 2
                pending[:0] = [(tasks[:half], resources)] if half else []
                continue
            except arrays.TryAgain as error:
                why = str(error)
                continue
            except BenchError:
                if self._stopped:
                    return why  # Ctrl-C reaches sbatch too
                client.cancel([str(submission.job) for submission in ours])  # all of it, or nothing
                for submission in ours:
                    self._ledger.remove(submission)
                raise
            ours.append(submission)
            for name, job in submission.jobs().items():
                where[name] = job
                self._place[name] = Place(job, Entry("PENDING"))
                self._context.tell(Update(self._tasks[name], WAITING, f"SLURM job {job}"))
        return why

    def _is_coming(self, needed: Task, where: Mapping[str, str]) -> bool:
        return needed.name in where or self._store.find(needed).status == DONE

"""Running one task: claim it, check its inputs, run it, publish its record. The same wherever it runs.

A task that fails is a record too. Only two things leave `run_task` as exceptions: a store, or another folder that tasks
share, that cannot be written (StoreError), and what the caller asked to let through.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NoReturn, TextIO

from bench.engine import include, provenance
from bench.engine.executors.protocol import BLOCKED, BROKEN, DONE, FAILED, HELD, STOPPED, WAITING
from bench.engine.failures import DIED, KEEPS_STATE, breaks_device, cause_of, is_a
from bench.engine.store import Store, attempts, failure_of, is_full
from bench.engine.store.claims import Claim
from bench.engine.task import Job, Sources, Task, canonical_json
from bench.errors import BenchError, StoreError, causes

KINDS = "bench.tasks:KINDS"  # by name, since the engine imports no kind of task
LOG_SECONDS = 10.0  # between two lines of progress in a task's log
Progress = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Outcome:
    """How a call of `run_task` ended.

    status: "done" | "failed" (there is a record), "blocked" (an input failed), "waiting" (an input is not done, or
    was found damaged, see `damaged`), "held" (another process runs it), "stopped" (told to stop; state saved), "broken"
    (this process has lost its GPU: it must end, and the task run again in another).
    """

    status: str
    detail: str = ""
    fresh: bool = False  # this call made the record
    damaged: Task | None = None  # an input that must be made again


def run_task(
    store: Store,
    task: Task,
    *,
    sources: Sources | None = None,
    device: str = "cpu",
    kinds: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    leader: int | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Outcome:
    """Bring one task to its end, at most once among all processes that share the store.

    kinds: kind -> object with `.run(job) -> metrics` and `.resumable` (default true); default `bench.tasks.KINDS`.
    leader: process id of the sweep that this worker belongs to (default: this process).
    notes: further fields for the record, e.g. what SLURM said.
    Raises StoreError when the store cannot be written.
    """
    with store.errors():
        settled = _settled(store, task) or _inputs_ready(store, task)
        if settled is not None:
            return settled
        claim = store.claims.take(task.name, leader)
        if claim is None:
            return Outcome(HELD, _holder_place(store, task))
        try:
            # Another process may have finished it, and given up its claim, between the look and the claim.
            store.look_afresh(task)
            settled = _settled(store, task) or _inputs_intact(store, task)
            if settled is not None:
                return settled
            sources, kind, refused = sources or Sources(), None, None
            try:
                include.load(sources.include)
                include.check(task)
                kind = _kind(task, kinds)  # may import torch, which is none of the task's seconds
            except BenchError as error:
                refused = error
            run = _Run(store, task, claim, sources, device, progress, should_stop, notes or {})
            return run.execute(kind) if refused is None else run.refuse(refused)
        finally:
            claim.release()


def record_death(store: Store, task: Task, detail: str, device: str = "cpu", cause: str = DIED) -> None:
    """Record that a task failed whose processes ended without a word of their own, again and again."""
    with store.errors():
        claim = store.claims.take(task.name)
        if claim is None:
            return
        try:
            if store.find(task).status != "done":
                record = {"error": {"cause": cause, "message": detail, "traceback": ""}, "metrics": {}}
                earlier = store.attempts(task).for_record()
                store.fail(task, claim, {**_frame(task, store, device, time.time(), earlier), **record})
        finally:
            claim.release()


class _Run:
    """One claimed task while it runs."""

    def __init__(
        self,
        store: Store,
        task: Task,
        claim: Claim,
        sources: Sources,
        device: str,
        progress: Progress | None,
        should_stop: Callable[[], bool] | None,
        notes: Mapping[str, Any],
    ) -> None:
        self.store, self.task, self.claim, self.notes = store, task, claim, notes
        self.sources, self.device = sources, device
        self.progress, self.should_stop = progress, should_stop or (lambda: False)
        self.started = time.time()
        self.attempts = store.attempts(task)
        self.logged = 0.0
        self.log: TextIO = sys.stderr

    def execute(self, kind: Any) -> Outcome:
        with open(self.store.log_path(self.task), "a", encoding="utf-8", buffering=1) as self.log:
            self._say(f"start {self.task.label or self.task.name} on {self.device}")
            self.attempts.begin(self.started, getattr(kind, "resumable", True))
            try:
                metrics, work = self._attempt(kind)
                canonical_json(metrics)  # refuses NaN and what is not JSON, before anything is published
            except Exception as error:
                if is_a(error, "smi.errors", "Interrupted"):
                    self._say("stopped; the next run goes on from here")
                    self._interrupted(attempts.STOPPED)
                    return Outcome(STOPPED)
                if isinstance(error, StoreError):  # of another folder that tasks share
                    self._say(f"not done: {error}")
                    raise
                if is_full(error):
                    self._say(f"the store is full or read-only: {error}")
                    self._raise_full(error)
                if breaks_device(error):
                    self._say(
                        f"the GPU is lost to this process, another one tries again:\n{_traceback(error)}"
                    )
                    self._interrupted(attempts.DEVICE)
                    return Outcome(BROKEN, cause_of(error, self.task)[1])
                return self._fail(error)
            self.store.finish(
                self.task, self.claim, work, {**self._frame(), "metrics": metrics, "error": None}
            )
            self._say(f"done in {time.time() - self.started:.1f} s")
            return Outcome(DONE, fresh=True)

    def refuse(self, error: BenchError) -> Outcome:
        """Record why the task cannot even begin."""
        with open(self.store.log_path(self.task), "a", encoding="utf-8", buffering=1) as self.log:
            return self._fail(error)

    def _attempt(self, kind: Any) -> tuple[dict[str, Any], Path]:
        """Run the task; damaged resumable state is thrown away once, and the task begins anew."""
        state = self.store.checkpoint(self.task)
        had_state = state.exists()
        try:
            return self._call(kind, state)
        except Exception as error:
            if not (had_state and is_a(error, "smi.errors", "CheckpointError")):
                raise
            self._say(f"the saved state cannot be used and is thrown away: {error}")
            self.store.drop_checkpoint(self.task)
            self.attempts.write()
            return self._call(kind, state)

    def _call(self, kind: Any, state: Path) -> tuple[dict[str, Any], Path]:
        work = self.store.open_work(self.task, self.claim)
        inputs = {name: self.store.artifacts(needed) for name, needed in self.task.inputs.items()}
        job = Job(
            task=self.task,
            inputs=inputs,
            out=work,
            checkpoint=state,
            device=self.device,
            sources=self.sources,
            progress=self._on_progress,
            should_stop=self.should_stop,
        )
        with _redirected(self.log):
            metrics = kind.run(job)
        return dict(metrics), work

    def _on_progress(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        self.claim.say(done, total, figures)
        if self.progress is not None:
            self.progress(done, total, figures)
        if time.monotonic() - self.logged >= LOG_SECONDS:
            self.logged = time.monotonic()
            self._say(f"{done}/{total} " + " ".join(f"{key}={value:.4g}" for key, value in figures.items()))

    def _fail(self, error: Exception) -> Outcome:
        cause, message = cause_of(error, self.task)
        place = include.where(error)
        message = f"{message} ({place})" if place else message
        text = _traceback(error)
        self._say(f"failed: {cause}: {message}\n{text}")
        if cause not in KEEPS_STATE:
            self.store.drop_checkpoint(self.task)
        failure = {"cause": cause, "message": message, "traceback": text}
        self.store.fail(self.task, self.claim, {**self._frame(), "metrics": {}, "error": failure})
        if cause in KEEPS_STATE:
            self._interrupted(FAILED)
        return Outcome(FAILED, f"{cause}: {message}", fresh=True)

    def _frame(self) -> dict[str, Any]:
        earlier = self.attempts.for_record()
        return {**_frame(self.task, self.store, self.device, self.started, earlier, self.claim), **self.notes}

    def _interrupted(self, how: str) -> None:
        self.attempts.end(how)
        self.attempts.write()

    def _raise_full(self, error: Exception) -> NoReturn:
        found = next((cause for cause in causes(error) if isinstance(cause, OSError)), None)
        if found is error:
            raise error
        raise found or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error

    def _say(self, text: str) -> None:
        try:
            self.log.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}\n")
        except OSError:
            pass  # a log line is not worth a task


def _frame(
    task: Task,
    store: Store,
    device: str,
    started: float,
    earlier: list[dict[str, Any]],
    claim: Claim | None = None,
) -> dict[str, Any]:
    """What every record says besides its metrics."""
    finished = time.time()
    return {
        **provenance.origin(device),
        "started": _timestamp(started),
        "finished": _timestamp(finished),
        "seconds": round(finished - started, 3),
        "earlier_attempts": earlier,
        "slurm_job_id": claim.holder.slurm_job_id if claim else None,
        "log": store.log_path(task).relative_to(store.root).as_posix(),
    }


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _settled(store: Store, task: Task) -> Outcome | None:
    finding = store.find(task)
    if finding.status == "done":
        return Outcome(DONE)
    if finding.status == "failed":
        return Outcome(FAILED, failure_of(finding))
    return None


def _inputs_ready(store: Store, task: Task) -> Outcome | None:
    for name, needed in task.inputs.items():
        finding = store.find(needed)
        if finding.status == "failed":
            return Outcome(BLOCKED, f"{name}: {needed.label or needed.name}")
        if finding.status != "done":
            deeper = _inputs_ready(store, needed)
            blocked = deeper is not None and deeper.status == BLOCKED
            return deeper if blocked else Outcome(WAITING, f"{name}: {needed.label or needed.name}")
    return None


def _inputs_intact(store: Store, task: Task) -> Outcome | None:
    """Every byte of every input is checked before it is used; a damaged input is forgotten, to be made again."""
    for needed in task.inputs.values():
        finding = store.find(needed, thorough=True)
        if finding.status == "damaged":
            store.forget(needed)
            return Outcome(WAITING, finding.damage, damaged=needed)
        if finding.status != "done":
            return Outcome(WAITING, needed.label or needed.name)
    return None


def _holder_place(store: Store, task: Task) -> str:
    holder = store.claims.holder(task.name)
    return holder.place if holder else ""


def _kind(task: Task, kinds: Mapping[str, Any] | None) -> Any:
    if kinds is None:
        kinds = resolve_name(KINDS)  # heavy (torch): only where a task really runs
    return kinds[task.kind]


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


@contextlib.contextmanager
def _redirected(log: TextIO) -> Iterator[None]:
    """What libraries print goes to the task's log, not into the sweep's live table."""
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield

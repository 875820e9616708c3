"""What is in SLURM now, and what became of what was: the queue, read through the ledger."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from bench.engine.executors.slurm import client
from bench.engine.executors.slurm.client import Entry
from bench.engine.executors.slurm.job import too_short
from bench.engine.executors.slurm.ledger import KEPT_SECONDS, Ledger, Submission, entry_of, find_lost_ids
from bench.engine.failures import MINUTES
from bench.engine.slurm_tools import ENDED
from bench.engine.store import Store
from bench.engine.task import Task
from bench.engine.worker import record_death
from bench.grid import Resources
from bench.text import plural

LOST_SECONDS = 600.0  # after which a submission without a job id, that SLURM does not know, never got there


@dataclass(frozen=True)
class Place:
    """Where a task is in SLURM."""

    job: str
    entry: Entry


@dataclass(frozen=True)
class View:
    """SLURM's queue and the ledger, at one moment."""

    submissions: tuple[Submission, ...]
    queue: Mapping[str, Entry]
    active: Mapping[str, Place]  # task name -> where it waits or runs


def look_at_slurm(ledger: Ledger) -> View | None:
    """The view of now; None if SLURM does not answer."""
    submissions = ledger.all()
    lost = any(submission.job is None for submission in submissions)
    queue = client.queue([s.job for s in submissions if s.job is not None], mine=lost) if submissions else {}
    if queue is None:
        return None
    submissions = find_lost_ids(submissions, queue)
    active: dict[str, Place] = {}
    for submission in submissions:
        for name, job in submission.jobs().items():
            entry = entry_of(job, submission, queue)
            if entry is not None and entry.active and (name not in active or entry.state == "RUNNING"):
                active[name] = Place(job, entry)
    return View(tuple(submissions), queue, active)


def end_states(jobs: Collection[str], view: View) -> dict[str, str]:
    """How jobs ended, as far as anyone knows, by id; one question to the accounting however many they are."""
    accounted = client.accounted([job for job in jobs if job not in view.queue])
    return {job: _end_state(job, view, accounted.get(job, "")) for job in jobs}


def _end_state(job: str, view: View, accounted: str) -> str:
    """How a job ended.

    A task cancelled while it waited in its array leaves no trace at all, in the queue or in the accounting: if the
    rest of its array is known and it is not, that is what happened.
    """
    entry = view.queue.get(job)
    if entry is not None:
        return entry.state
    if accounted in ENDED:
        return accounted
    main, _, index = job.partition("_")
    rest_is_known = index and any(other.startswith(f"{main}_") for other in view.queue)
    return "CANCELLED" if rest_is_known else accounted or "unknown"


def failed_for_time(store: Store, task: Task, resources: Mapping[str, Resources]) -> bool:
    """Whether a job that came to its limit without stopping in time is its task's failure; then it is recorded."""
    wanted = resources.get(task.kind, Resources())
    if wanted.tasks_per_job > 1:
        return False  # others of the job may have had its time
    attempts = store.attempts(task)
    attempts.timed_out()
    if attempts.hopeless():
        record_death(store, task, too_short(task.kind, wanted.minutes), cause=MINUTES)
    return attempts.hopeless()


def forget_settled(ledger: Ledger, view: View) -> None:
    """Forget submissions whose jobs have ended and whose tasks are settled, or that are old."""
    recorded = ledger.store.recorded()
    for submission in view.submissions:
        if any(name in view.active for name in submission.tasks):
            continue
        if submission.job is None and time.time() - submission.submitted < LOST_SECONDS:
            continue  # perhaps just being submitted by another sweep
        if time.time() - submission.submitted > KEPT_SECONDS or recorded.issuperset(submission.tasks):
            ledger.remove(submission)


def queued_lines(store: Store, tasks: Sequence[Task]) -> list[str]:
    """For --status: what of some tasks waits or runs in SLURM, one line per job."""
    if not (store.root / "slurm").is_dir():
        return []
    view = look_at_slurm(Ledger(store))
    if view is None:
        return ["SLURM does not answer: what waits in its queue is not known"]
    names = {task.name for task in tasks}
    counts: Counter[tuple[str, str]] = Counter()
    for name, place in view.active.items():
        if name in names:
            reason = f" ({place.entry.reason})" if place.entry.reason else ""
            counts[place.job.partition("_")[0], f"{place.entry.state.lower()}{reason}"] += 1
    return [
        f"SLURM job {job}: {plural(count, 'task')} {state}" for (job, state), count in sorted(counts.items())
    ]

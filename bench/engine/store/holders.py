"""Who holds a claim, and whether that process still lives: the evidence on which a claim may be taken over."""

from __future__ import annotations

import json
import os
import platform
import signal
import time
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

from bench.engine import slurm_tools

SLURM_SECONDS = 10.0  # for how long an answer of squeue is believed


@dataclass(frozen=True)
class Holder:
    """A process, named so that another machine can tell whether it still lives."""

    host: str
    boot: str  # changes when the machine restarts
    namespace: str  # containers on one machine count processes apart
    pid: int
    started: str  # start time of the process in clock ticks: process ids are used again
    leader: int  # process id of the sweep on that host that this process works for
    leader_started: str
    slurm_job_id: str | None
    slurm_restart: str | None
    token: str
    cluster: str = ""  # that the job belongs to: two clusters may share a store, and count jobs apart

    @property
    def place(self) -> str:
        job = f", SLURM job {self.slurm_job_id}" if self.slurm_job_id else ""
        return f"{self.host}, process {self.pid}{job}"


def myself(leader: int | None = None) -> Holder:
    """The calling process as a holder, with a token that no other claim has."""
    pid = os.getpid()
    return Holder(
        host=platform.node(),
        boot=_boot_id(),
        namespace=_pid_namespace(),
        pid=pid,
        started=_start_time(pid) or "",
        leader=leader or pid,
        leader_started=_start_time(leader or pid) or "",
        slurm_job_id=slurm_tools.job_id(os.environ),
        slurm_restart=os.environ.get("SLURM_RESTART_COUNT"),
        token=uuid.uuid4().hex,
        cluster=slurm_tools.cluster(os.environ),
    )


def process_lives(holder: Holder) -> bool | None:
    """Whether the holder's process lives; None if it runs where it cannot be seen from here."""
    if (holder.host, holder.boot, holder.namespace) != (platform.node(), _boot_id(), _pid_namespace()):
        return None
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    started = _start_time(holder.pid)
    if started is None:
        return not Path("/proc/self/stat").exists()  # no /proc at all: the signal above is all there is
    return not holder.started or started == holder.started


def stop_sweeps(holders: Iterable[Holder]) -> str:
    """Tell the sweeps on this machine that these processes work for to stop in order. One line on what was done."""
    told: set[int] = set()
    others: set[str] = set()
    for holder in holders:
        if process_lives(holder) is None or holder.slurm_job_id:
            others.add(holder.place)
        elif _start_time(holder.leader) == holder.leader_started:
            told.add(holder.leader)
    for pid in told:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
    words = [f"told {len(told)} sweep{'s' if len(told) > 1 else ''} on this machine to stop"] if told else []
    words += [f"not reached from here: {'; '.join(sorted(others))}"] if others else []
    return ", ".join(words) or "nothing of this grid runs on this machine"


def slurm_jobs_live(holders: Collection[Holder]) -> dict[str, bool]:
    """Whether the holders' SLURM jobs are still queued or running, by token; those of whom SLURM says nothing are not
    there. One call of squeue however many they are.

    A job that squeue does not know may be another cluster's, or another user's where the site hides them: no evidence.
    """
    verdicts: dict[str, bool] = {}
    asked: dict[str, str] = {}
    for holder in holders:
        job = holder.slurm_job_id
        if not job or (holder.cluster and holder.cluster != (slurm_tools.asked_cluster() or holder.cluster)):
            continue
        if job == slurm_tools.job_id(os.environ):
            # This very job: an earlier start of it is over, since SLURM requeues a job only when it has ended.
            verdicts[holder.token] = os.environ.get("SLURM_RESTART_COUNT") == holder.slurm_restart
        else:
            asked[holder.token] = job
    states = _states(frozenset(asked.values()))
    for token, job in asked.items():
        if states.get(job):
            verdicts[token] = states[job] not in slurm_tools.ENDED
    return verdicts


_known: dict[str, tuple[float, str]] = {}  # job -> (when squeue was asked, its state; "" unknown)


def _states(jobs: Collection[str]) -> dict[str, str]:
    """squeue's word on jobs, believed for SLURM_SECONDS so that many claims do not flood it."""
    now = time.monotonic()
    stale = {job for job in jobs if job not in _known or now - _known[job][0] > SLURM_SECONDS}
    if stale:
        found = slurm_tools.job_states(stale)
        for job in [job for job, (when, _) in _known.items() if now - when > SLURM_SECONDS]:
            del _known[job]
        _known.update((job, (now, (found or {}).get(job, ""))) for job in stale)
    return {job: _known[job][1] for job in jobs}


def read_holder(path: Path) -> Holder | None:
    try:
        value = json.loads(path.read_bytes())
        return Holder(**{field.name: value[field.name] for field in fields(Holder) if field.name in value})
    except (OSError, ValueError, KeyError, TypeError):
        return None


@lru_cache(maxsize=1)
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@lru_cache(maxsize=1)
def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat; None when the process is gone or a zombie, or where there is no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    rest = text.rpartition(")")[2].split()
    return None if rest[0] in "ZX" else rest[19]

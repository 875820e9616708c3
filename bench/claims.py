"""Claims: who is running a task, so that no two sweeps on a shared file system ever run it at once.

A claim is a file that exactly one process can create. A dead holder's claim is taken over on evidence alone:
its process is gone, its SLURM job has ended, or its heartbeat has stopped for longer than `SILENCE` seconds.
No lock daemon is needed: only links and renames, which every shared file system does atomically.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench import atomic

BEAT = 10.0  # seconds between heartbeats
SILENCE = 300.0  # seconds without one after which a holder that cannot be asked counts as dead


@dataclass(frozen=True)
class Holder:
    """A process, named so that another machine can tell whether it still lives."""

    host: str
    boot: str  # changes when the machine restarts
    namespace: str  # containers on one machine count processes apart
    pid: int
    started: str  # start time of the process in clock ticks: process ids are used again
    leader: int  # process id of the sweep on that host that this process works for
    slurm_job_id: str | None
    slurm_restart: str | None
    token: str

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
        slurm_job_id=slurm_job_id(os.environ),
        slurm_restart=os.environ.get("SLURM_RESTART_COUNT"),
        token=uuid.uuid4().hex,
    )


def slurm_job_id(environment: Mapping[str, str]) -> str | None:
    """The job's id as SLURM's tools print it: `12` or, in an array, `12_3`."""
    if "SLURM_ARRAY_JOB_ID" in environment and "SLURM_ARRAY_TASK_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID")


class Claims:
    """The claims of one store. All times are the file system's own, so clocks of machines need not agree."""

    def __init__(self, folder: Path, aside: Path, silence: float = SILENCE) -> None:
        self.folder, self.aside, self.silence = folder, aside, silence

    def take(self, name: str, leader: int | None = None) -> Claim | None:
        """Claim a task, from a dead holder if need be; None while another living process has it."""
        holder = myself(leader)
        data = json.dumps(asdict(holder), sort_keys=True).encode()
        path = self._path(name)
        for _ in range(3):
            if atomic.create(path, data, self.aside):
                return Claim(self, name, holder)
            found = self.holder(name)
            if found is not None and self.lives(name, found):
                return None
            if not self._remove_dead(name, found):
                return None
        return None

    def holder(self, name: str) -> Holder | None:
        """Who claims a task; None if nobody does, or if the claim is unreadable (then only its age speaks)."""
        return _read_holder(self._path(name))

    def held(self) -> dict[str, Holder]:
        """Every claim of a living holder, by task name."""
        found = {}
        for path in sorted(self.folder.glob("*.json")):
            holder = _read_holder(path)
            if holder is not None and self.lives(path.stem, holder):
                found[path.stem] = holder
        return found

    def lives(self, name: str, holder: Holder) -> bool:
        """False only on evidence that the holder is gone."""
        alive = process_lives(holder)
        if alive is None:
            alive = slurm_job_lives(holder)
        if alive is None:
            alive = self._silence(name, holder.token) < self.silence
        return alive

    def progress(self, name: str, holder: Holder) -> dict[str, Any]:
        """What the holder said last: {"done", "total", "figures"}; empty if it has said nothing yet."""
        try:
            value = json.loads(self._beat(name, holder.token).read_bytes())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _beat(self, name: str, token: str) -> Path:
        return self.folder / f"{name}.{token}.beat"

    def _silence(self, name: str, token: str) -> float:
        """Seconds since the holder's last sign of life, by the file system's clock."""
        times = []
        for path in (self._beat(name, token), self._path(name)):
            try:
                times.append(path.stat().st_mtime)
            except OSError:
                continue
        return self._now() - max(times, default=0.0)

    def _now(self) -> float:
        probe = self.aside / f".clock.{uuid.uuid4().hex}.tmp"
        try:
            probe.touch()
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _remove_dead(self, name: str, found: Holder | None) -> bool:
        """Take a dead holder's claim away; one of any number of processes does so, under a lock of its own.

        Returns whether it is worth another try. An unreadable claim is removed once it is old enough.
        """
        lock = self.folder / f"{name}.takeover"
        mine = json.dumps(asdict(myself())).encode()
        if not atomic.create(lock, mine, self.aside):
            return self._clear_dead_lock(name, lock)
        try:
            again = self.holder(name)
            if (again.token if again else None) != (found.token if found else None):
                return True  # it has changed hands meanwhile: judge the new holder
            if again is None and not self._path(name).exists():
                return True
            if again is None and self._silence(name, "") < self.silence:
                return False
            self._path(name).unlink(missing_ok=True)
            if again is not None:
                self._beat(name, again.token).unlink(missing_ok=True)
            return True
        finally:
            lock.unlink(missing_ok=True)

    def _clear_dead_lock(self, name: str, lock: Path) -> bool:
        """A process killed within the few instructions of a takeover leaves its lock; take it away on evidence."""
        holder = _read_holder(lock)
        if holder is None or process_lives(holder) is not False:
            try:
                old = self._now() - lock.stat().st_mtime > self.silence
            except OSError:
                return True
            if not old:
                return False
        grave = self.aside / f".{lock.name}.{uuid.uuid4().hex}.tmp"
        try:
            os.rename(lock, grave)
        except FileNotFoundError:
            return True
        buried = _read_holder(grave)
        if holder is not None and buried is not None and buried.token != holder.token:
            atomic.create(lock, grave.read_bytes(), self.aside)  # another's, made meanwhile: give it back
        grave.unlink(missing_ok=True)
        return True


class Claim:
    """A claim that this process holds: beats while it lives, and is given up by `release`."""

    def __init__(self, claims: Claims, name: str, holder: Holder) -> None:
        self.claims, self.name, self.holder = claims, name, holder
        self._said: dict[str, Any] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name=f"heartbeat {name}", daemon=True)
        self._thread.start()

    def say(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Progress for whoever watches; written with the next heartbeat."""
        shown = {key: float(value) for key, value in figures.items() if math.isfinite(value)}
        self._said = {"done": int(done), "total": int(total), "figures": shown}

    def is_mine(self) -> bool:
        """False if another process has taken this claim for dead and put its own in place."""
        found = self.claims.holder(self.name)
        return found is not None and found.token == self.holder.token

    def release(self) -> None:
        """Give the claim up. Never raises: a claim that cannot be removed ends with this process anyway."""
        self._ended.set()
        self._thread.join(timeout=5)
        try:
            if self.is_mine():
                self.claims._path(self.name).unlink(missing_ok=True)
            self.claims._beat(self.name, self.holder.token).unlink(missing_ok=True)
        except OSError:
            pass

    def _beat_on(self) -> None:
        path = self.claims._beat(self.name, self.holder.token)
        shown: dict[str, Any] | None = None
        last = 0.0
        while not self._ended.wait(1.0):
            due = time.monotonic() - last >= BEAT
            if due or self._said != shown:
                said = self._said
                try:
                    atomic.write_json(path, said, self.claims.aside)
                except (OSError, ValueError):
                    continue  # a full disk must not end the task; others see silence and wait for SILENCE
                shown, last = said, time.monotonic()


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


def slurm_job_lives(holder: Holder) -> bool | None:
    """Whether the holder's SLURM job is still queued or running; None if SLURM cannot tell."""
    if not holder.slurm_job_id:
        return None
    if holder.slurm_job_id == slurm_job_id(os.environ):
        # This very job: an earlier start of it is over, since SLURM requeues a job only when it has ended.
        return os.environ.get("SLURM_RESTART_COUNT") == holder.slurm_restart
    return _ask_slurm(holder.slurm_job_id, int(time.monotonic() // BEAT))


ACTIVE = {
    "PENDING",
    "RUNNING",
    "SUSPENDED",
    "COMPLETING",
    "CONFIGURING",
    "REQUEUED",
    "RESIZING",
    "STAGE_OUT",
    "SIGNALING",
}


@lru_cache(maxsize=1024)
def _ask_slurm(job_id: str, moment: int) -> bool | None:
    """`squeue`'s word on one job; kept for one heartbeat (`moment`) so that many claims do not flood it."""
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", "--states=all", "--jobs", job_id, "--format=%T"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode != 0:
        return False if "Invalid job id" in answer.stderr else None
    states = answer.stdout.split()
    if not states:
        return None
    return any(state in ACTIVE for state in states)


def _read_holder(path: Path) -> Holder | None:
    try:
        value = json.loads(path.read_bytes())
        return Holder(**{field.name: value[field.name] for field in fields(Holder)})
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

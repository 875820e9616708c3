"""Claims: who is running a task, so that no two sweeps on a shared file system ever run it at once.

A claim is a file that exactly one process can create. A dead holder's claim is taken over on evidence alone:
its process is gone, its SLURM job has ended, or its heartbeat has stopped for longer than `SILENCE` seconds.
No lock daemon is needed: only links and renames, which every shared file system does atomically.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.engine import atomic
from bench.engine.store.holders import Holder, myself, process_lives, read_holder, slurm_job_lives

BEAT = 10.0  # seconds between heartbeats
SILENCE = 300.0  # seconds without one after which a holder that cannot be asked counts as dead


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
        return read_holder(self._path(name))

    def held(self) -> dict[str, Holder]:
        """Every claim of a living holder, by task name."""
        found = {}
        for path in sorted(self.folder.glob("*.json")):
            holder = read_holder(path)
            if holder is not None and self.lives(path.stem, holder):
                found[path.stem] = holder
        return found

    def bury(self) -> None:
        """Remove what processes left that died between publishing a result and giving up its claim."""
        for path in self.folder.glob("*.json"):
            holder = read_holder(path)
            if holder is not None and not self.lives(path.stem, holder):
                self._remove_dead(path.stem, holder)

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

    def begun(self, name: str) -> float | None:
        """When a task was claimed, in seconds since the epoch; None if nobody claims it."""
        try:
            return self._path(name).stat().st_mtime
        except OSError:
            return None

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
        holder = read_holder(lock)
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
        buried = read_holder(grave)
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
                    atomic.write_bytes(path, atomic.json_bytes(said), self.claims.aside, lasting=False)
                except (OSError, ValueError):
                    continue  # a full disk must not end the task; others see silence and wait for SILENCE
                shown, last = said, time.monotonic()

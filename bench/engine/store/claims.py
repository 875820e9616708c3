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
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.engine import atomic
from bench.engine.store.holders import Holder, myself, process_lives, read_holder, slurm_jobs_live

BEAT = 20.0  # seconds between heartbeats: a thousand workers share a file server
FIRST_BEAT = 2.0  # and to the first one, which shows that a task has begun in earnest
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
        found = self._all()
        living = self.living(found)
        return {name: holder for name, holder in found.items() if name in living}

    def bury(self) -> None:
        """Remove what processes left that died between publishing a result and giving up its claim."""
        found = self._all()
        for name in found.keys() - self.living(found):
            self._remove_dead(name, found[name])

    def lives(self, name: str, holder: Holder) -> bool:
        """False only on evidence that the holder is gone."""
        return bool(self.living({name: holder}))

    def living(self, found: Mapping[str, Holder]) -> set[str]:
        """Names of the claims whose holder is not known to be gone: its process tells where it can be seen from here,
        else its SLURM job if squeue knows it, else its heartbeat. One squeue for all of them."""
        verdicts = {name: process_lives(holder) for name, holder in found.items()}
        unseen = {name: found[name] for name, alive in verdicts.items() if alive is None}
        jobs = slurm_jobs_live(unseen.values())
        now = self.now() if any(holder.token not in jobs for holder in unseen.values()) else 0.0
        for name, holder in unseen.items():
            silence = now - self._last_sign(name, holder.token)
            verdicts[name] = jobs.get(holder.token, silence < self.silence)
        return {name for name, alive in verdicts.items() if alive}

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

    def _all(self) -> dict[str, Holder]:
        """Every readable claim, by task name."""
        read = ((path.stem, read_holder(path)) for path in sorted(self.folder.glob("*.json")))
        return {name: holder for name, holder in read if holder is not None}

    def _last_sign(self, name: str, token: str) -> float:
        """When the holder last gave a sign of life, by the file system's clock; 0 if there is none."""
        times = []
        for path in (self._beat(name, token), self._path(name)):
            try:
                times.append(path.stat().st_mtime)
            except OSError:
                continue
        return max(times, default=0.0)

    def now(self) -> float:
        """The file system's time, which ages of its files are reckoned by."""
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
            if again is None and self.now() - self._last_sign(name, "") < self.silence:
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
                old = self.now() - lock.stat().st_mtime > self.silence
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
        pause = FIRST_BEAT
        while not self._ended.wait(pause):
            pause = BEAT
            try:
                atomic.overwrite(path, atomic.json_bytes(self._said))
            except (OSError, ValueError):
                continue  # a full disk must not end the task; others see silence and wait for SILENCE

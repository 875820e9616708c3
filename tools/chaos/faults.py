"""The faults: each does real harm to the sweeps of one arena, and takes back what would not pass by itself."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.chaos.arena import Arena

HOUR = 3600.0


def kill_worker(arena: Arena, chance: random.Random) -> bool:
    """kill -9 of a process that runs a task; waits for one, as between two SLURM jobs there is none."""
    patience = time.monotonic() + 3
    while not (workers := arena.workers()) and time.monotonic() < patience:
        time.sleep(0.05)
    return bool(workers) and _kill(chance.choice(workers))


def kill_sweep(arena: Arena, chance: random.Random) -> bool:
    """kill -9 of a sweep."""
    sweeps = arena.running()
    return bool(sweeps) and _kill(chance.choice(sweeps).pid)


def kill_all(arena: Arena, chance: random.Random) -> bool:
    """kill -9 of all sweeps and of every process that runs a task."""
    victims = [*(process.pid for process in arena.running()), *arena.workers()]
    killed = [_kill(pid) for pid in victims]
    return any(killed)


def second_sweep(arena: Arena, chance: random.Random) -> bool:
    """Another sweep of the same grid on the same store, until it ends."""
    if len(arena.running()) != 1:
        return False
    arena.start()
    return True


def jump_clock(arena: Arena, chance: random.Random) -> bool:
    """Claims and heartbeats dated an hour into the past or the future, as by a machine whose clock is wrong."""
    now = time.time() + chance.choice([-HOUR, HOUR])
    files = list(arena.store.glob("claims/*"))
    for path in files:
        with contextlib.suppress(FileNotFoundError):
            os.utime(path, (now, now))
    return bool(files)


def fill_disk(arena: Arena, chance: random.Random) -> bool:
    """The store's disk full to its last byte for some seconds."""
    if not arena.mounted:
        return False
    ballast = arena.disk / "ballast"
    try:
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        time.sleep(chance.uniform(0.5, 4))
    finally:
        ballast.unlink(missing_ok=True)
    return True


def shut_store(arena: Arena, chance: random.Random) -> bool:
    """No file can be made in, or removed from, any folder of the store for some seconds."""
    folders = [arena.store, *(path for path in arena.store.rglob("*") if path.is_dir())]
    with _shut(folders) as shut:
        if shut:
            time.sleep(chance.uniform(0.5, 4))
        return shut


def silence_squeue(arena: Arena, chance: random.Random) -> bool:
    """squeue that fails for some seconds, as when the controller is away."""
    mark = arena.folder.parent / "no-squeue"
    if arena.executor != "slurm":
        return False
    mark.touch()
    try:
        time.sleep(chance.uniform(2, 15))
    finally:
        mark.unlink()
    return True


FAULTS: dict[str, Callable[[Arena, random.Random], bool]] = {
    "worker killed": kill_worker,
    "sweep killed": kill_sweep,
    "all killed": kill_all,
    "second sweep": second_sweep,
    "clock jumped": jump_clock,
    "disk full": fill_disk,
    "store read-only": shut_store,
    "squeue failing": silence_squeue,
}


def failing_squeue(folder: Path, real: str) -> Path:
    """A folder for PATH whose squeue fails while `folder`/no-squeue is there, and is else the real one."""
    script = folder / "bin" / "squeue"
    script.parent.mkdir()
    error = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    test = f'[ -e "{folder}/no-squeue" ] && {{ echo "{error}" >&2; exit 1; }}'
    script.write_text(f'#!/bin/sh\n{test}\nexec {real} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return script.parent


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def _shut(folders: list[Path]) -> Iterator[bool]:
    """Modes bind everybody but root, whom only the file system's own mark stops."""
    there = [str(folder) for folder in folders if folder.is_dir()]
    if os.getuid() == 0:
        done = subprocess.run(["chattr", "+i", *there], capture_output=True).returncode == 0
        try:
            yield done
        finally:
            subprocess.run(["chattr", "-i", *there], capture_output=True)
        return
    modes = {folder: stat.S_IMODE(os.stat(folder).st_mode) for folder in there}
    try:
        for folder, mode in modes.items():
            os.chmod(folder, mode & ~0o222)
        yield True
    finally:
        for folder, mode in modes.items():
            os.chmod(folder, mode)

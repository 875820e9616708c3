"""Processes that outlive who started them: written down in one folder, asked after and ended by id and start time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

STARTED = "started.json"  # marks a folder as ours, and holds the daemons' process ids and start times


class Daemons:
    """The daemons of one folder, each by a name; what they print goes to log/<name>.out."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.dir, self.environment = folder, environment

    def launch(self, name: str, *command: str, **environment: str) -> None:
        """Start a daemon, with further variables in its environment, and write it down."""
        with open(self.dir / "log" / f"{name}.out", "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.environment, **environment},
                start_new_session=True,
            )
        process.returncode = 0  # outlives us: not ours to wait for
        self._note(name, process.pid)

    def alive(self, name: str) -> bool:
        entry = self._pids().get(name)
        return entry is not None and _start_time(entry[0]) == entry[1]

    def end(self, name: str) -> None:
        """End one daemon by the process id that was written down when it was started."""
        if self.alive(name):
            pid = self._pids()[name][0]
            os.kill(pid, signal.SIGTERM)
            if not until(lambda: not self.alive(name), 15):
                os.kill(pid, signal.SIGKILL)
                until(lambda: not self.alive(name), 5)
        self._note(name, None)

    def tail(self, name: str) -> str:
        """The last lines that a daemon printed."""
        with contextlib.suppress(OSError):
            lines = (self.dir / "log" / f"{name}.out").read_text(errors="replace").splitlines()
            return "\n".join(lines[-20:])
        return ""

    def _pids(self) -> dict[str, list]:
        try:
            return json.loads((self.dir / STARTED).read_text())
        except (OSError, ValueError):
            return {}

    def _note(self, name: str, pid: int | None) -> None:
        pids = {**self._pids(), name: None if pid is None else [pid, _start_time(pid)]}
        kept = {key: value for key, value in pids.items() if value is not None}
        (self.dir / STARTED).write_text(json.dumps(kept))


def until(done: Callable[[], bool], seconds: float) -> bool:
    """Wait for something; whether it came in time."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _start_time(pid: int) -> str | None:
    """Tells two processes of one number apart. None when it is gone; a zombie is, there may be nobody to reap it."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]

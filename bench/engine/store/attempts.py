"""The attempts at one task: how long each took and how it ended.

Kept beside the task's saved state, and gone with it; the record that the last of them ends in lists the earlier ones.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.engine import atomic

STOPPED, TIMED_OUT, KILLED, DEVICE = "stopped", "timed out", "killed", "device error"
BARREN_ALLOWED = 3  # time-outs one after the other that saved nothing new, of a task that can save its state


class Attempts:
    """The attempts of one task, oldest first: [{"started", "seconds", "ended", "saved", "resumable"}].

    `saved`: whether this attempt left new state behind. `resumable`: whether its kind can save any.
    """

    def __init__(self, state: Path) -> None:
        self._state, self._file = state, state.with_name("attempts.json")
        try:
            found = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            found = []
        self.all: list[dict[str, Any]] = found if isinstance(found, list) else []
        if self.all and "ended" not in self.all[-1]:  # its process was killed: what it saved is what it did
            self._end(KILLED, until=self._saved_at())

    def begin(self, started: float, resumable: bool) -> None:
        """Note that an attempt begins; whoever kills it cannot be asked afterwards."""
        self.all.append({"started": started, "resumable": resumable})
        self.write()

    def end(self, how: str) -> None:
        """Note how the attempt that runs has ended; `write` keeps it."""
        self._end(how, until=time.time())

    def timed_out(self) -> None:
        """The last attempt was ended by its job's time limit."""
        if self.all:
            self.all[-1]["ended"] = TIMED_OUT
            self.write()

    def hopeless(self) -> bool:
        """Whether another attempt of the same length would end as the last ones did: by the time limit, with nothing
        saved to go on from."""
        if self.all and not self.all[-1]["resumable"]:
            return self.all[-1]["ended"] == TIMED_OUT
        last = self.all[-BARREN_ALLOWED:]
        barren = [attempt["ended"] == TIMED_OUT and not attempt["saved"] for attempt in last]
        return len(last) == BARREN_ALLOWED and all(barren)

    def write(self) -> None:
        self._file.parent.mkdir(exist_ok=True)
        atomic.write_bytes(self._file, atomic.json_bytes(self.all), lasting=False)

    def for_record(self) -> list[dict[str, Any]]:
        """What a record says of those that have ended."""
        return [
            {
                "started": datetime.fromtimestamp(attempt["started"], UTC).isoformat(timespec="seconds"),
                "seconds": round(attempt["seconds"], 3),
                "ended": attempt["ended"],
            }
            for attempt in self.all
            if "ended" in attempt
        ]

    def _end(self, how: str, until: float) -> None:
        attempt = self.all[-1]
        attempt |= {
            "seconds": max(0.0, until - attempt["started"]),
            "ended": how,
            "saved": self._saved_at() > attempt["started"],
        }

    def _saved_at(self) -> float:
        try:
            return self._state.stat().st_mtime
        except OSError:
            return 0.0

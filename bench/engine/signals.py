"""Being told to stop: Ctrl-C, SIGTERM, SIGHUP and SIGUSR2 end a sweep in order; a second Ctrl-C ends it at once.

And how a process that died did so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
STOPPED = "stopped; nothing that was finished is lost: the same command goes on from here"


class Stopper:
    """While entered, a stop signal calls `stop` once, in the main thread, and work ends by itself soon after."""

    def __init__(self, stop: Callable[[], str]) -> None:
        self._stop = stop
        self._before: dict[int, Any] = {}
        self.caught = 0  # number of the first signal
        self.message = ""

    def __enter__(self) -> Stopper:
        if threading.current_thread() is threading.main_thread():
            for number in STOP:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.caught:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.caught = number
        still_running = self._stop()
        self.message = still_running or STOPPED
        # Not print(): the signal may have come in the middle of one.
        text = still_running or "stopping: running tasks save their state; Ctrl-C again ends them at once"
        os.write(2, f"\n{text}\n".encode())


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Stop signals wait while a process starts: it inherits the hold until its own handlers are in place."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def how_it_died(code: int | None) -> str:
    """`by SIGKILL (out of memory?)`, `with exit code 1`. code: below zero, the signal that ended the process."""
    if code is None or code >= 0:
        return f"with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

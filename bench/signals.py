"""Being told to stop: Ctrl-C, SIGTERM, SIGHUP and SIGUSR2 end a sweep in order; a second Ctrl-C ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

STOPPED = "stopped; nothing that was finished is lost: the same command goes on from here"


class Stopper:
    """While entered, a stop signal calls `stop` once, in the main thread, and work ends by itself soon after."""

    NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2")

    def __init__(self, stop: Callable[[], str]) -> None:
        self._stop = stop
        self._before: dict[int, Any] = {}
        self.caught = 0  # number of the first signal
        self.message = ""

    def __enter__(self) -> Stopper:
        if threading.current_thread() is threading.main_thread():
            for name in self.NAMES:
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
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

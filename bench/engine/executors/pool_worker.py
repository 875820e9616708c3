"""What a process of the local pool does: take tasks from its line, run them, report. Ends when the line goes dead."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from bench.engine.executors.protocol import Context
from bench.engine.signals import STOP
from bench.engine.store import Store
from bench.engine.task import Task
from bench.engine.worker import Outcome, run_task
from bench.errors import StoreError

REPORT_SECONDS = 0.25  # between two words about one running task


def main(connection: Connection, context: Context, leader: int) -> None:
    """Serve until the sweep (process `leader`) hangs up, dies, or says stop.

    Sends (done, total, figures) while a task runs, its Outcome when it ends, or a text if the store cannot be
    written.
    """
    stopping = threading.Event()
    for number in STOP:
        if signal.getsignal(number) is not signal.SIG_IGN:  # e.g. SIGHUP under nohup
            signal.signal(number, lambda *_: stopping.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
    _redirect_output(context.store)

    def should_stop() -> bool:
        return stopping.is_set() or os.getppid() != leader  # a sweep that was killed has no other voice

    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        _tell(connection, _run(connection, context, leader, task, should_stop), stopping)


def _run(
    connection: Connection, context: Context, leader: int, task: Task, should_stop: Any
) -> Outcome | str:
    reporter = _Reporter(connection)
    try:
        return run_task(
            context.store,
            task,
            sources=context.sources,
            device=context.device,
            kinds=context.kinds,
            progress=reporter,
            should_stop=should_stop,
            leader=leader,
        )
    except StoreError as error:
        return str(error)


class _Reporter:
    """Passes progress on, now and then: the line is for people, and people read slowly."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._last = connection, 0.0

    def __call__(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self._last >= REPORT_SECONDS:
            self._last = now
            try:
                self._connection.send((done, total, dict(figures)))
            except OSError:
                pass  # the sweep is gone, which should_stop sees


def _tell(connection: Connection, word: Outcome | str, stopping: threading.Event) -> None:
    try:
        connection.send(word)
    except OSError:
        stopping.set()


def _redirect_output(store: Store) -> None:
    """What is printed outside a task, by C libraries or a crash, goes to a file and not into the live table."""
    try:
        descriptor = os.open(
            store.root / "logs" / "workers.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666
        )
    except OSError:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)

"""The serial executor: one task after the other, in this process.

A process that has lost its GPU to an error can run nothing more: then a pool of one process sees through the rest.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence

from bench.engine.executors.local import LocalExecutor
from bench.engine.executors.protocol import BROKEN, RUNNING, Context, Update
from bench.engine.executors.ready import Queue
from bench.engine.store.holders import stop_sweeps
from bench.engine.task import Task
from bench.engine.worker import run_task


class SerialExecutor:
    """Runs tasks here. On Ctrl-C the running task saves its state and ends; a second one ends it at once."""

    detaches = False

    def __init__(self, context: Context) -> None:
        self._context = context
        self._queue = Queue(context.store, context.tell)
        self._pool: LocalExecutor | None = None

    def submit(self, tasks: Sequence[Task]) -> None:
        self._queue.add(tasks)

    def poll(self, seconds: float) -> bool:
        if self._pool is not None:
            return self._pool.poll(seconds)
        task = self._queue.next(time.monotonic())
        if task is None:
            if not self._queue.empty:
                time.sleep(seconds)
            return not self._queue.empty
        context = self._context
        context.tell(Update(task, RUNNING))
        outcome = run_task(
            context.store,
            task,
            sources=context.sources,
            device=context.device,
            kinds=context.kinds,
            progress=lambda done, total, figures: context.tell(
                Update(task, RUNNING, "", done, total, figures)
            ),
            should_stop=lambda: self._queue.stopped,
            leader=os.getpid(),
        )
        if outcome.status == BROKEN and not self._queue.stopped:
            self._queue.put_back(task)
            self._pool = LocalExecutor(dataclasses.replace(context, jobs=1))
            self._pool.submit(self._queue.left)
            return True
        self._queue.settle(task, outcome, time.monotonic())
        return not self._queue.empty

    def stop(self) -> str:
        self._queue.stop()
        return self._pool.stop() if self._pool is not None else ""

    def cancel(self, tasks: Sequence[Task]) -> str:
        held = self._context.store.claims.held()
        return stop_sweeps(held[task.name] for task in tasks if task.name in held)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()

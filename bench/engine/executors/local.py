"""The local pool: tasks in parallel on this machine, one process per GPU or `--jobs N` of them.

Processes are spawned, never forked (CUDA and threads do not survive a fork), and CPU threads are divided among them.
A worker that dies costs the task it ran one more try; a task whose workers die twice is recorded as failed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

from bench.engine import devices, signals
from bench.engine.executors.pool_worker import main
from bench.engine.executors.protocol import BROKEN, FAILED, RUNNING, STOPPED, Context, Update
from bench.engine.executors.ready import Queue
from bench.engine.provenance import cpu_count
from bench.engine.store.holders import stop_sweeps
from bench.engine.task import Task
from bench.engine.worker import Outcome, record_death
from bench.errors import StoreError

DEATHS_ALLOWED = 2  # of workers that ran one task
PATIENCE = 10.0  # seconds that a worker told to end gets


class LocalExecutor:
    """A pool of processes on this machine."""

    detaches = False

    def __init__(self, context: Context) -> None:
        self._context = context
        self._queue = Queue(context.store, context.tell)
        self._gpus = _gpus(context.device)
        self._size = context.jobs or max(1, len(self._gpus))
        self._workers: list[_Worker] = []
        self._deaths: Counter[str] = Counter()

    def submit(self, tasks: Sequence[Task]) -> None:
        self._size = max(1, min(self._size, len(tasks)))
        self._queue.add(tasks)

    def poll(self, seconds: float) -> bool:
        self._hand_out()
        if self._queue.empty:
            return False
        sources: list[Any] = [worker.connection for worker in self._workers]
        sources += [worker.process.sentinel for worker in self._workers]
        if sources:
            wait(sources, timeout=seconds)
        else:
            time.sleep(seconds)
        for worker in list(self._workers):
            alive = worker.process.is_alive()  # looked at before its last words are read
            self._listen(worker)
            if not alive and worker in self._workers:
                self._bury(worker)
        return not self._queue.empty

    def stop(self) -> str:
        self._queue.stop()
        for worker in self._workers:
            worker.tell_to_stop()
        return ""

    def cancel(self, tasks: Sequence[Task]) -> str:
        held = self._context.store.claims.held()
        return stop_sweeps(held[task.name] for task in tasks if task.name in held)

    def close(self) -> None:
        for worker in self._workers:
            worker.connection.close()  # an idle worker ends when its line goes dead
            if worker.task is not None:
                worker.tell_to_stop()
        deadline = time.monotonic() + PATIENCE
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()

    def _hand_out(self) -> None:
        """Give every idle worker a task; start workers while there are tasks for them."""
        while True:
            idle = next((worker for worker in self._workers if worker.task is None), None)
            if idle is None and len(self._workers) >= self._size:
                return
            task = self._queue.next(time.monotonic())
            if task is None:
                return
            if idle is None:
                idle = self._start()
            idle.give(task)
            self._context.tell(Update(task, RUNNING))

    def _start(self) -> _Worker:
        taken = Counter(worker.gpu for worker in self._workers)
        gpu = min(self._gpus, key=lambda name: taken[name]) if self._gpus else None
        worker = _Worker(self._context, gpu, max(1, cpu_count() // self._size))
        self._workers.append(worker)
        return worker

    def _listen(self, worker: _Worker) -> None:
        try:
            while worker.connection.poll():
                self._hear(worker, worker.connection.recv())
        except (EOFError, OSError):
            return  # dead, retired, or half-way through a word; the caller looks after it

    def _hear(self, worker: _Worker, said: Any) -> None:
        task = worker.task
        if isinstance(said, str):
            worker.task = None
            raise StoreError(said)
        assert task is not None  # a worker speaks of its task alone
        if isinstance(said, Outcome):
            worker.task = None
            if said.status == STOPPED and not self._queue.stopped:
                # Somebody told this worker alone to stop: it leaves, and its task goes on in another.
                self._workers.remove(worker)
                worker.connection.close()
                self._queue.put_back(task)
            elif said.status == BROKEN:
                self._workers.remove(worker)
                worker.connection.close()  # it ends
                self._died(task, f"workers that ran it lost their GPU: {said.detail}")
            else:
                self._queue.settle(task, said, time.monotonic())
        else:
            self._context.tell(Update(task, RUNNING, "", *said))

    def _bury(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.connection.close()
        task = worker.task
        if task is None:
            return
        how = signals.how_it_died(worker.process.exitcode)
        self._died(task, f"workers that ran it died, the last one {how}")

    def _died(self, task: Task, how: str) -> None:
        """A worker was lost to a task: another one tries it, or it has failed."""
        self._deaths[task.name] += 1
        if self._deaths[task.name] < DEATHS_ALLOWED or self._queue.stopped:
            self._queue.put_back(task)
            return
        detail = f"{DEATHS_ALLOWED} {how}"
        record_death(self._context.store, task, detail, self._context.device)
        self._queue.settle(task, Outcome(FAILED, detail, fresh=True), time.monotonic())


class _Worker:
    """One process of the pool, seen from the sweep."""

    def __init__(self, context: Context, gpu: str | None, threads: int) -> None:
        self.gpu = gpu
        self.task: Task | None = None
        spawn = multiprocessing.get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        sent = dataclasses.replace(context, notify=None)
        self.process = spawn.Process(target=main, args=(theirs, sent, os.getpid()), name="bench worker")
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        with _environment(environment), signals.held():
            self.process.start()
        theirs.close()

    def give(self, task: Task) -> None:
        self.task = task
        with contextlib.suppress(OSError):  # it died: found out at the next look
            self.connection.send(task)

    def tell_to_stop(self) -> None:
        """Safe in a signal handler: one system call."""
        with contextlib.suppress(OSError):
            if self.process.pid is not None and self.process.exitcode is None:
                os.kill(self.process.pid, signal.SIGTERM)


def _gpus(device: str) -> list[str]:
    """What to put in CUDA_VISIBLE_DEVICES for one worker each; empty when the workers share `device` as it is."""
    if device != "cuda":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not visible:
        return [str(index) for index in range(devices.gpu_count())]
    named = visible.split(",")
    if all(name.isdecimal() for name in named):
        return named[: devices.gpu_count()]  # it may name GPUs that do not exist
    return named  # of several MIG instances a process counts the first alone


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Variables that a process started inside inherits; torch reads its thread count from them when it is imported."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value

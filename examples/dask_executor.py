"""An executor from outside the tree: a sweep's tasks on a Dask cluster.

    python -m bench.sweep --grid experiments/table3.yaml --executor examples.dask_executor:DaskExecutor --jobs 4

starts a cluster of `--jobs` processes on this machine. Any other is named by its scheduler's address, e.g. one that
dask-jobqueue has started through PBS, LSF or SGE; its workers need this checkout, its environment and the store:

    cluster = dask_jobqueue.PBSCluster(cores=4, memory="16GB"); cluster.scale(20); print(cluster.scheduler_address)
    SMI_DASK_SCHEDULER=tcp://... python -m bench.sweep --grid ... --executor examples.dask_executor:DaskExecutor

Needs `pip install distributed`. docs/adding.md tells what an executor owes a sweep.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from distributed import Client, Future, LocalCluster, get_worker, wait
from distributed.scheduler import KilledWorker

from bench.engine.executors.protocol import BROKEN, FAILED, RUNNING, STOPPED, Context, Update
from bench.engine.executors.ready import Queue
from bench.engine.store.holders import stop_sweeps
from bench.engine.task import Task
from bench.engine.worker import Outcome, record_death, run_task
from bench.errors import BenchError

SCHEDULER = "SMI_DASK_SCHEDULER"  # environment variable: address of a cluster's scheduler
CONNECT_SECONDS = 30
LOSSES_ALLOWED = 2  # of workers that lost their GPU to one task; of those that die Dask itself allows three
LOOK_SECONDS = 1.0  # between two looks of a running task for the word to stop


class DaskExecutor:
    """Hands out tasks whose inputs are done, as many as the cluster has threads, and settles what comes back.

    A worker that dies is Dask's to notice: it runs the task in another one, which takes over the dead one's claim.
    """

    detaches = False

    def __init__(self, context: Context) -> None:
        self._context = context
        self._queue = Queue(context.store, context.tell)
        self._running: dict[Future, Task] = {}
        self._losses: Counter[str] = Counter()
        # Workers may be on other machines: a file of the store is a word that reaches them all.
        self._stop_word = context.store.root / "tmp" / f"dask.stop.{uuid.uuid4().hex}"
        self._cluster: LocalCluster | None = None
        self._client: Client | None = None

    def submit(self, tasks: Sequence[Task]) -> None:
        self._queue.add(tasks)
        address = os.environ.get(SCHEDULER)
        if address is None:
            jobs = max(1, min(self._context.jobs or 1, len(tasks)))
            self._cluster = LocalCluster(
                n_workers=jobs, threads_per_worker=1, processes=True, dashboard_address=None
            )
        try:
            self._client = Client(self._cluster or address, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise BenchError(
                f"{SCHEDULER}={address}: no Dask scheduler answers there ({type(error).__name__})"
            ) from None

    def poll(self, seconds: float) -> bool:
        self._hand_out()
        if self._queue.stopped and self._running and not self._stop_word.exists():
            self._stop_word.touch()
        if self._queue.empty:
            return False
        if self._running:
            with contextlib.suppress(TimeoutError):
                wait(list(self._running), timeout=seconds, return_when="FIRST_COMPLETED")
        else:
            time.sleep(seconds)
        for future in [future for future in self._running if future.done()]:
            self._settle(self._running.pop(future), future)
        return not self._queue.empty

    def stop(self) -> str:
        self._queue.stop()  # in a signal handler: the workers are told at the next poll
        return ""

    def cancel(self, tasks: Sequence[Task]) -> str:
        held = self._context.store.claims.held()
        return stop_sweeps(held[task.name] for task in tasks if task.name in held)

    def close(self) -> None:
        if self._running:
            self._stop_word.touch()
            with contextlib.suppress(TimeoutError):
                wait(list(self._running), timeout=10)
        if self._client is not None:
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()
        self._stop_word.unlink(missing_ok=True)

    def _hand_out(self) -> None:
        assert self._client is not None  # submit comes first
        sent = dataclasses.replace(self._context, notify=None)
        while len(self._running) < max(1, sum(self._client.nthreads().values())):
            task = self._queue.next(time.monotonic())
            if task is None:
                return
            future = self._client.submit(
                _run, sent, task, self._stop_word, pure=False, key=f"{task.name}-{uuid.uuid4()}"
            )
            self._running[future] = task
            self._context.tell(Update(task, RUNNING))

    def _settle(self, task: Task, future: Future) -> None:
        try:
            outcome, worker = future.result()
        except KilledWorker as error:
            self._failed(task, f"workers that ran it died: {error}")
            return
        if outcome.status == BROKEN:  # it lost its GPU and can run nothing more
            assert self._client is not None
            self._client.restart_workers([worker], raise_for_error=False)
            self._losses[task.name] += 1
            if self._losses[task.name] < LOSSES_ALLOWED:
                self._queue.put_back(task)
            else:
                self._failed(task, f"{LOSSES_ALLOWED} workers that ran it lost their GPU: {outcome.detail}")
        elif outcome.status == STOPPED and not self._queue.stopped:
            self._queue.put_back(task)
        else:
            self._queue.settle(task, outcome, time.monotonic())

    def _failed(self, task: Task, why: str) -> None:
        record_death(self._context.store, task, why, self._context.device)
        self._queue.settle(task, Outcome(FAILED, why, fresh=True), time.monotonic())


def _run(context: Context, task: Task, stop_word: Path) -> tuple[Outcome, str]:
    """In a worker: bring one task to its record; (how that ended, the worker's address)."""
    looked, stopping = 0.0, False

    def should_stop() -> bool:
        nonlocal looked, stopping
        if not stopping and time.monotonic() - looked > LOOK_SECONDS:
            looked, stopping = time.monotonic(), stop_word.exists()
        return stopping

    outcome = run_task(
        context.store,
        task,
        sources=context.sources,
        device=context.device,
        kinds=context.kinds,
        should_stop=should_stop,
    )
    return outcome, get_worker().address

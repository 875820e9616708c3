"""The process that runs tasks inside a SLURM job, as ordered through standard input; answers by its exit code."""

from __future__ import annotations

import os
import pickle
import signal
import sys

from bench.engine.executors.protocol import BROKEN, STOPPED
from bench.engine.executors.slurm.job import BROKEN_EXIT, SETTLED_EXIT, STOPPED_EXIT, STORE_EXIT, Order
from bench.engine.executors.slurm.ledger import Ledger
from bench.engine.signals import STOP
from bench.engine.store import Store
from bench.engine.worker import record_death, run_task
from bench.errors import BenchError


def main() -> int:
    """Run the tasks that were ordered; told to stop, the one that runs saves its state at the end of its iteration."""
    told: list[int] = []
    for number in STOP:
        signal.signal(number, lambda received, frame: told.append(received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
    order: Order = pickle.load(sys.stdin.buffer)  # from the process that started this one
    store = Store(order.store)
    try:
        for name in order.tasks:
            task = Ledger(store).read_task(name)
            if order.death:
                record_death(store, task, order.death, order.device, order.cause)
                continue
            if told:
                return STOPPED_EXIT
            outcome = run_task(
                store,
                task,
                sources=order.sources,
                device=order.device,
                kinds=order.kinds,
                # A parent that was killed has no other voice.
                should_stop=lambda: bool(told) or os.getppid() != order.parent,
                notes=order.notes,
            )
            print(f"{name}: {outcome.status} {outcome.detail}".rstrip(), flush=True)
            if outcome.status in (STOPPED, BROKEN):
                return STOPPED_EXIT if outcome.status == STOPPED else BROKEN_EXIT
    except BenchError as error:
        print(error, file=sys.stderr, flush=True)
        return STORE_EXIT
    return SETTLED_EXIT


if __name__ == "__main__":
    sys.exit(main())

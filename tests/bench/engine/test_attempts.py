"""Attempts at a task: their seconds add up in its record, and endless ones end as a failure that says so."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest
import toy_suite

from bench.engine.executors.local import LocalExecutor
from bench.engine.executors.protocol import BROKEN, DONE, FAILED, STOPPED, Context
from bench.engine.executors.serial import SerialExecutor
from bench.engine.executors.slurm import job
from bench.engine.executors.slurm.ledger import Ledger, Submission, pack_sources
from bench.engine.executors.slurm.view import failed_for_time
from bench.engine.store import Store
from bench.engine.task import Sources, Task
from bench.engine.worker import run_task
from bench.grid import Resources
from bench.tasks import KINDS

TASK = Task("probe", {"x": 1})


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "store")
    store.prepare()
    return store


def kind(run, resumable: bool = True):
    return {"probe": SimpleNamespace(version=1, run=run, resumable=resumable)}


def interrupted(job):
    job.checkpoint.write_text("state")
    raise toy_suite.smi_error("Interrupted")("told to stop")


def test_seconds_of_all_attempts_are_in_the_record(store):
    assert run_task(store, TASK, kinds=kind(interrupted)).status == STOPPED
    assert run_task(store, TASK, kinds=kind(interrupted)).status == STOPPED
    assert run_task(store, TASK, kinds=kind(lambda job: {})).status == DONE
    record = store.record(TASK)
    assert [attempt["ended"] for attempt in record["earlier_attempts"]] == ["stopped", "stopped"]
    assert not store.checkpoint(TASK).parent.exists()


def test_a_killed_attempt_counts_until_what_it_saved(store):
    attempts = store.attempts(TASK)
    attempts.begin(1000.0, resumable=True)
    store.checkpoint(TASK).write_text("state")
    os.utime(store.checkpoint(TASK), (1060.0, 1060.0))
    run_task(store, TASK, kinds=kind(lambda job: {}))
    first = store.record(TASK)["earlier_attempts"][0]
    assert (first["ended"], first["seconds"]) == ("killed", 60.0)


def test_damaged_state_loses_no_attempt(store):
    def fussy(job):
        if job.checkpoint.exists():
            raise toy_suite.smi_error("CheckpointError")("damaged")
        return {}

    run_task(store, TASK, kinds=kind(interrupted))
    assert run_task(store, TASK, kinds=kind(fussy)).status == DONE
    assert [attempt["ended"] for attempt in store.record(TASK)["earlier_attempts"]] == ["stopped"]


def timed_out(store, resumable: bool, saves: bool):
    attempts = store.attempts(TASK)
    attempts.begin(time.time() - 60, resumable)
    if saves:
        store.checkpoint(TASK).write_text("state")
    return failed_for_time(store, TASK, {"probe": Resources(minutes=7)})


def test_a_kind_that_saves_no_state_fails_at_its_first_time_out(store):
    assert timed_out(store, resumable=False, saves=False)
    error = store.record(TASK)["error"]
    assert error["cause"] == "needs more minutes" and "it had 7" in error["message"]
    assert "`minutes` of probe" in error["message"]
    assert [attempt["ended"] for attempt in store.record(TASK)["earlier_attempts"]] == ["timed out"]


def test_a_resumable_kind_goes_on_while_it_gets_further(store):
    assert not any(timed_out(store, resumable=True, saves=True) for _ in range(20))
    assert store.record(TASK) is None


def test_a_resumable_kind_that_gets_nowhere_fails(store):
    assert [timed_out(store, resumable=True, saves=False) for _ in range(3)] == [False, False, True]


def test_which_kinds_are_resumable():
    assert {name for name, kind in KINDS.items() if kind.resumable} == {"teacher", "images", "transfer"}


@pytest.mark.parametrize(
    ("minutes", "ran", "late", "given_up"),
    [(10, 600, 0, True), (240, 600, 0, False), (10, 600, 300, False)],
    ids=["timed out", "preempted", "begun after others of its job"],
)
def test_the_job_of_a_kind_without_state_is_requeued_when_preempted_only(store, minutes, ran, late, given_up):
    ledger = Ledger(store)
    ledger.prepare()
    ledger.write_tasks([TASK])
    store.attempts(TASK).begin(time.time() - ran + late, resumable=False)
    call = job.SlurmTask(str(store.root))
    call._names, call._began = (TASK.name,), time.time() - ran
    call._submission = Submission(
        "smi-1", (TASK.name,), "cpu", pack_sources(Sources()), 1, 0, 50.0, {}, minutes=minutes
    )
    assert call._give_up() == given_up
    assert (store.find(TASK).status == FAILED) == given_up


# ---- a GPU that is lost to the process that uses it


def test_a_lost_gpu_is_no_failure_of_the_task(store):
    outcome = run_task(store, TASK, kinds=kind(toy_suite.lose_gpu_once))
    assert outcome.status == BROKEN and "device-side assert" in outcome.detail
    assert store.find(TASK).status == "missing" and not store.claims.held()


@pytest.mark.parametrize("executor", [SerialExecutor, LocalExecutor])
def test_a_worker_that_lost_its_gpu_is_replaced(store, executor):
    other = Task("other", {})
    kinds = {
        "probe": toy_suite.ToyKind(1, toy_suite.lose_gpu_once),
        "other": toy_suite.ToyKind(1, toy_suite.where),
    }
    see_through(executor, store, [TASK, other], kinds)
    metrics = store.record(TASK)["metrics"]
    assert metrics["before"] != metrics["process"]
    assert store.record(other)["metrics"]["process"] != metrics["before"]
    assert [attempt["ended"] for attempt in store.record(TASK)["earlier_attempts"]] == ["device error"]


def test_a_task_that_takes_gpu_after_gpu_with_it_fails(store):
    see_through(LocalExecutor, store, [TASK], {"probe": toy_suite.ToyKind(1, toy_suite.lose_gpu)})
    assert "lost their GPU" in store.record(TASK)["error"]["message"]


def see_through(executor, store, tasks, kinds):
    running = executor(Context(store=store, sources=Sources(), device="cpu", kinds=kinds, jobs=1))
    running.submit(tasks)
    try:
        while running.poll(0.1):
            pass
    finally:
        running.close()

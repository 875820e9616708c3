"""Executors: which one is chosen and why, and how the local pool divides a machine."""

from __future__ import annotations

import os
import signal
import sys
import time
import types

import pytest
import toy_suite

from bench.engine import executors
from bench.engine.executors import local
from bench.engine.executors.local import LocalExecutor
from bench.engine.executors.protocol import DONE, RUNNING, Context, Update
from bench.engine.executors.serial import SerialExecutor
from bench.engine.store import Store
from bench.engine.task import Sources, Task
from bench.errors import BenchError

KINDS = {
    **toy_suite.KINDS,
    "where": toy_suite.ToyKind(1, toy_suite.where),
    "loud": toy_suite.ToyKind(1, toy_suite.loud),
}


@pytest.fixture
def context(tmp_path):
    store = Store(tmp_path / "store")
    store.prepare()

    def context(**more) -> Context:
        return Context(**{"store": store, "sources": Sources(), "device": "cpu", "kinds": KINDS, **more})

    return context


def see_through(executor, tasks) -> None:
    executor.submit(tasks)
    try:
        while executor.poll(0.1):
            pass
    finally:
        executor.close()


@pytest.mark.parametrize(
    ("asked", "scale", "jobs", "gpus", "chosen"),
    [
        (None, "digits", None, 0, "serial"),
        (None, "digits", None, 1, "serial"),
        (None, "digits", None, 4, "local"),
        (None, "digits", 3, 0, "local"),
        (None, "digits", 1, 4, "serial"),
        (None, "paper", None, 2, "local"),
        ("serial", "paper", None, 4, "serial"),
        ("local", "digits", None, 0, "local"),
    ],
)
def test_the_choice_and_its_reason(monkeypatch, asked, scale, jobs, gpus, chosen):
    monkeypatch.setattr(executors, "gpu_count", lambda: gpus)
    monkeypatch.setenv("PATH", "")  # no SLURM
    name, why = executors.choose(asked, scale, jobs, None)
    assert name == chosen and why


def test_slurm_asked_for_and_not_there_is_one_line(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchError, match="--executor slurm") as caught:
        executors.choose("slurm", "digits", None, None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "jobs", "device", "gpus", "workers"),
    [
        ("serial", None, None, 4, 1),
        ("local", 3, None, 4, 3),
        ("local", None, None, 4, 4),
        ("local", None, "cuda", 2, 2),
        ("local", None, "cpu", 4, 1),
        ("local", None, None, 0, 1),
    ],
)
def test_how_many_tasks_run_at_a_time(monkeypatch, name, jobs, device, gpus, workers):
    monkeypatch.setattr(executors, "gpu_count", lambda: gpus)
    assert executors.workers(name, jobs, device) == workers


def test_without_gpus_the_pool_is_one_process(context):
    tasks = [Task("where", {"n": n}) for n in range(2)]
    see_through(LocalExecutor(context()), tasks)
    assert len({context().store.record(task)["metrics"]["process"] for task in tasks}) == 1


def test_what_is_printed_past_a_task_goes_to_a_file_of_the_store(context, capfd):
    task = Task("loud", {})
    see_through(LocalExecutor(context(jobs=1)), [task])
    assert context().store.find(task).status == "done"
    log = context().store.root / "logs" / "workers.log"
    assert log.read_text() == "to the output\nto the errors\n"
    assert "to the" not in "".join(capfd.readouterr())


def test_each_worker_has_a_gpu_and_its_share_of_the_threads(context, monkeypatch):
    monkeypatch.setattr("bench.engine.devices.gpu_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("bench.engine.executors.local.cpu_count", lambda: 6)
    tasks = [Task("where", {"n": n}) for n in range(4)]
    pool = LocalExecutor(context(device="cuda"))
    see_through(pool, tasks)
    seen = [context().store.record(task)["metrics"] for task in tasks]
    gpu_of = {metrics["process"]: metrics["CUDA_VISIBLE_DEVICES"] for metrics in seen}
    assert sorted(gpu_of.values()) == ["0", "1"]
    assert {metrics["OMP_NUM_THREADS"] for metrics in seen} == {"3"}
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_every_instance_of_a_shared_gpu_has_its_worker(monkeypatch):
    """A process counts one instance, however many are named."""
    monkeypatch.setattr("bench.engine.devices.gpu_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    assert local._gpus("cuda") == ["MIG-a", "MIG-b"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,7")
    assert local._gpus("cuda") == ["0"]


def test_gpus_hidden_by_the_user_stay_hidden(context, monkeypatch):
    monkeypatch.setattr("bench.engine.devices.gpu_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7,99")  # torch sees two
    tasks = [Task("where", {"n": n}) for n in range(2)]
    see_through(LocalExecutor(context(device="cuda")), tasks)
    seen = {context().store.record(task)["metrics"]["CUDA_VISIBLE_DEVICES"] for task in tasks}
    assert seen == {"5", "7"}


def test_a_worker_told_to_stop_alone_hands_its_task_on(context):
    store, news = context().store, []
    task = Task("leaf", {"name": "slow", "milliseconds": 2000})
    pool = LocalExecutor(context(jobs=1, notify=news.append))
    pool.submit([task])
    told = False
    while pool.poll(0.05):
        holder = store.claims.holder(task.name)
        if holder is not None and not told and any(update.done for update in news):
            os.kill(holder.pid, signal.SIGTERM)
            told = True
        time.sleep(0.01)
    pool.close()
    assert told and store.find(task).status == "done"
    assert "goes on from here" in store.log_path(task).read_text()


def test_updates_tell_the_story_of_a_task(context):
    news: list[Update] = []
    task = Task("leaf", {"name": "x"})
    see_through(SerialExecutor(context(notify=news.append)), [task])
    assert [update.status for update in news] == [RUNNING] * 5 + [DONE]
    assert [update.done for update in news] == [0, 1, 2, 3, 4, 0]


def test_an_input_found_damaged_on_the_way_is_made_again(context):
    """Damage that size and time do not show, found by the checksum just before use."""
    store = context().store
    root = Task("root", {"name": "root"})
    leaf = Task("leaf", {"name": "leaf"}, {"root": root})
    see_through(SerialExecutor(context()), [root])
    file = store.artifacts(root) / "value.txt"
    stat, good = file.stat(), file.read_bytes()
    file.write_bytes(b"9" * len(good))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    see_through(SerialExecutor(context()), [leaf])
    assert file.read_bytes() == good
    assert store.find(leaf, thorough=True).status == "done"


class Outside(SerialExecutor):
    """Somebody else's."""


def test_an_executor_from_outside_the_tree(monkeypatch, context):
    monkeypatch.setitem(sys.modules, "someone", types.SimpleNamespace(Outside=Outside, number=3))
    name, why = executors.choose("someone:Outside", "digits", None, None)
    executor = executors.make(name, context())
    assert isinstance(executor, Outside) and "--executor" in why
    task = Task("leaf", {"name": "x"})
    see_through(executor, [task])
    assert context().store.find(task).status == "done"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent:Executor", "^--executor 'absent:Executor': cannot be imported"),
        ("someone:Absent", "cannot be imported"),
        ("someone:number", "lacks cancel, close, detaches, poll, stop, submit"),
        (":x", "module:Class"),
        ("someone:", "module:Class"),
    ],
)
def test_an_executor_that_is_none_is_refused_in_one_line(monkeypatch, name, said):
    monkeypatch.setitem(sys.modules, "someone", types.SimpleNamespace(number=3))
    with pytest.raises(BenchError, match=said) as caught:
        executors.choose(name, "digits", None, None)
    assert "\n" not in str(caught.value)

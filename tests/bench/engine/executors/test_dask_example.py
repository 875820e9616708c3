"""examples/dask_executor.py on a cluster of this machine: inputs first; a worker killed; a sweep stopped, resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_suite

from bench.engine import executors
from bench.engine.executors.protocol import Context
from bench.engine.store import Store
from bench.engine.task import Sources
from bench.errors import BenchError

ROOT = Path(__file__).parents[4]
NAME = "examples.dask_executor:DaskExecutor"


@pytest.fixture
def sweep(tmp_path):
    """Starts the toy sweep on Dask: sweep(milliseconds of a task, jobs, variables) -> process."""
    (tmp_path / "toy.yaml").write_text(toy_suite.GRID, encoding="utf-8")

    def sweep(milliseconds: int = 20, jobs: int = 2, **variables: str) -> subprocess.Popen:
        text = toy_suite.GRID.replace("milliseconds: 20", f"milliseconds: {milliseconds}")
        (tmp_path / "toy.yaml").write_text(text, encoding="utf-8")
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests/end_to_end")])
        return subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-c",
                    "import sys, toy_suite; sys.exit(toy_suite.main(suite=toy_suite.SUITE))",
                ),
                *("--grid", str(tmp_path / "toy.yaml"), "--executor", NAME, "--jobs", str(jobs)),
                *("--store", str(tmp_path / "store"), "--results", str(tmp_path / "results")),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": paths, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return sweep


def done(store: Store) -> dict[str, dict]:
    """The finished records, by name."""
    found = {name: store.find_named(name, thorough=True) for name in store.recorded()}
    return {
        name: one.record for name, one in found.items() if one.status == "done" and one.record is not None
    }


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


@pytest.mark.slow
def test_every_task_is_done_once_with_its_inputs_first(sweep, tmp_path):
    process = sweep()
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    records = done(Store(tmp_path / "store"))
    assert len(records) > 16 and not list((tmp_path / "store/claims").iterdir())
    by_key = {record["key"]: record for record in records.values()}
    for record in records.values():
        assert all(by_key[key]["finished"] <= record["started"] for key in record["inputs"].values())
        assert not record["earlier_attempts"]


@pytest.mark.slow
def test_a_killed_workers_task_runs_in_another(sweep, tmp_path):
    store = Store(tmp_path / "store")
    process = sweep(milliseconds=1500)
    wait_for(lambda: list(store.root.glob("checkpoints/*/attempts.json")))  # one has begun
    name = next(store.root.glob("checkpoints/*/attempts.json")).parent.name
    holder = store.claims.holder(name)
    assert holder.pid != process.pid
    os.kill(holder.pid, signal.SIGKILL)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    ended = [attempt["ended"] for record in done(store).values() for attempt in record["earlier_attempts"]]
    assert ended == ["killed"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_was_stopped_or_killed_goes_on(how, sweep, tmp_path):
    store = Store(tmp_path / "store")
    process = sweep(milliseconds=800)
    wait_for(lambda: (store.root / "records").is_dir() and len(done(store)) >= 2)
    process.send_signal(how)
    process.communicate(timeout=60)
    before = done(store)
    again = sweep(milliseconds=800, jobs=4)
    said, _ = again.communicate(timeout=180)
    assert again.returncode == 0, said
    after = done(store)
    assert len(before) < len(after) and before.items() <= after.items()


def test_no_scheduler_at_the_address_is_one_line(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr("examples.dask_executor.CONNECT_SECONDS", 1)
    monkeypatch.setenv("SMI_DASK_SCHEDULER", "tcp://127.0.0.1:9")
    store = Store(tmp_path / "store")
    executor = executors.make(NAME, Context(store=store, sources=Sources(), device="cpu"))
    with pytest.raises(
        BenchError, match=r"^SMI_DASK_SCHEDULER=tcp://127.0.0.1:9: no Dask scheduler answers there"
    ):
        executor.submit([])
    executor.close()

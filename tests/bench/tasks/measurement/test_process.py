"""The processes that measure: how they fail, are told to stop, and end with whoever started them."""

import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from processes import children, descendants, lives
from small_costs import GRID, load, request_of

from bench import experiments
from bench.engine.store import Store, is_full
from bench.engine.task import Sources
from bench.engine.worker import run_task
from bench.errors import BenchError
from bench.tasks.measurement import process


@pytest.mark.slow
def test_a_measuring_process_that_fails_says_why(tmp_path):
    store = Store(tmp_path / "runs")
    store.prepare()
    task = experiments.build(load(tmp_path), "digits", Sources())[0].tasks["cost"]
    recipe = {**task.settings["recipe"], "learning_rate": -1.0}
    task = replace(task, settings={**task.settings, "recipe": recipe})
    outcome = run_task(store, task)
    assert outcome.status == "failed"
    assert (
        "the measuring process ended with exit code 1: " in outcome.detail
        and "learning_rate" in outcome.detail
    )
    assert "in measure" in store.record(task)["error"]["traceback"]  # the process's own


@pytest.mark.slow
def test_a_stopped_measurement_leaves_no_process_and_no_record(tmp_path):
    store = Store(tmp_path / "runs")
    store.prepare()
    task = experiments.build(load(tmp_path), "digits", Sources())[0].tasks["cost"]
    task = replace(task, settings={**task.settings, "repetitions": 10**6, "warmup": 10**6})
    questions = itertools.count()
    outcome = run_task(store, task, should_stop=lambda: next(questions) > 8)  # four seconds on
    assert outcome.status == "stopped" and store.record(task) is None
    assert children(os.getpid()) == []


def long_sweep(tmp_path) -> subprocess.Popen:
    """A sweep of costs that is still measuring when it is looked at, the leader of its own group."""
    load(tmp_path, GRID.replace("repetitions: 3", "repetitions: 1000"))
    places = [f"--{name}={tmp_path / name}" for name in ("store", "results")]
    command = [sys.executable, "-m", "bench.sweep", f"--grid={tmp_path / 'tiny.yaml'}", "--executor=serial"]
    return subprocess.Popen([*command, *places], start_new_session=True, stdout=subprocess.DEVNULL)


def wait_for_the_end_of(processes) -> None:
    deadline = time.monotonic() + 30
    while any(lives(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 5.0])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cost_sweep_that_is_told_to_stop_fails_nothing(tmp_path, number, seconds):
    """Ctrl-C goes to every process of the terminal, and SLURM's SIGTERM to every process of the job."""
    with long_sweep(tmp_path) as sweep:
        while not descendants(sweep.pid) and sweep.poll() is None:
            time.sleep(0.05)
        time.sleep(seconds)
        below = descendants(sweep.pid)
        while not below and sweep.poll() is None:  # between two of them, on a busy machine
            time.sleep(0.05)
            below = descendants(sweep.pid)
        assert below
        for process in (sweep.pid, *below):
            os.kill(process, number)
        assert sweep.wait(60) == 130
    assert list((tmp_path / "store" / "records").rglob("*.json")) == []
    assert not any(lives(process) for process in below)


@pytest.mark.slow
def test_no_measuring_process_outlives_a_sweep_that_is_killed(tmp_path):
    with long_sweep(tmp_path) as sweep:
        while len(below := descendants(sweep.pid)) < 2 and sweep.poll() is None:
            time.sleep(0.05)
        sweep.kill()
    assert len(below) == 2  # what is forked from, and the fork
    wait_for_the_end_of(below)
    assert not any(lives(process) for process in below)


@pytest.mark.slow
def test_a_fork_goes_with_what_it_was_forked_from():
    """As where the system runs out of memory and kills the one, not the other."""
    killed = []

    def should_stop() -> bool:
        server = process._server.pid
        if not killed and descendants(server):
            killed.extend(descendants(server))
            os.kill(server, signal.SIGKILL)
        return False

    with pytest.raises(BenchError, match="the measuring process ended by SIGKILL"):
        process.measured(asdict(request_of(repetitions=10**6, warmup=10**6)), should_stop)
    wait_for_the_end_of(killed)
    assert killed and not any(lives(process) for process in killed)


@pytest.mark.slow
def test_a_script_may_run_a_cost_sweep_as_its_first_line(tmp_path):
    """Processes that start by running their starter's script again would start the sweep again."""
    load(tmp_path)
    options = [f"--grid={tmp_path / 'tiny.yaml'}", "--executor=serial", "--only=psaq_dense"]
    options += [f"--{name}={tmp_path / name}" for name in ("store", "results")]
    script = tmp_path / "script.py"
    script.write_text(
        f"from bench.sweep import main\nraise SystemExit(main({options!r}))\n", encoding="utf-8"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "1 done" in done.stdout


@pytest.mark.parametrize(
    ("last", "kind"),
    [("torch.OutOfMemoryError: CUDA out of memory", MemoryError), ("ValueError: no", BenchError)],
)
def test_what_a_measuring_process_says_before_it_fails_is_not_why(monkeypatch, last, kind):
    """A cache on a full disk, or an allocation that went well at the second try, is no fault of the task's."""
    traceback = f"Traceback (most recent call last):\n  in measure\n{last}"

    def fails(order, should_stop):
        warned = "warning: OutOfMemoryError caught\nwarning: No space left on device"
        Path(order["said"]).write_text(f"{warned}\n{traceback}\n", encoding="utf-8")
        return 1

    monkeypatch.setattr(process, "_ask", fails)
    with pytest.raises(kind, match="ended with exit code 1: ") as caught:
        process.measured({}, lambda: False)
    assert str(caught.value.__cause__) == traceback and not is_full(caught.value)

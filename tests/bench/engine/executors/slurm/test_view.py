"""What is read from SLURM's tools, here small scripts: the queue, the accounting, cancelling, how a job ended."""

from __future__ import annotations

import os
import time

import pytest

from bench.engine.executors.slurm import client, view
from bench.engine.executors.slurm.client import Entry
from bench.engine.executors.slurm.ledger import Ledger, Submission
from bench.engine.executors.slurm.view import View, end_states, look_at_slurm, queued_lines
from bench.engine.store import Store
from bench.engine.task import Task

TASKS = [Task("images", {"seed": seed}) for seed in range(3)]


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """A function that puts a script in the place of one of SLURM's tools; each writes its arguments into a file."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def tool(name: str, script: str):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/{name}.asked\n{script}\n')
        (tmp_path / name).chmod(0o755)
        return tmp_path / f"{name}.asked"

    return tool


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    """Of three tasks: two in the array 70, one that waits as job 81."""
    ledger = Ledger(Store(tmp_path / "runs"))
    ledger.store.prepare()
    ledger.prepare()
    for token, job, tasks in (("smi-1", "70", TASKS[:2]), ("smi-2", "81", TASKS[2:])):
        names = tuple(task.name for task in tasks)
        ledger.write(Submission(token, names, "cpu", {}, 1, 0, time.time(), {}, job=job))
    return ledger


def test_the_accounting_is_asked_once_and_gives_the_last_state_of_each_job(tool):
    asked = tool("sacct", "echo '12_3|COMPLETED'; echo '12_4|CANCELLED by 0'; echo '12_5|'")
    assert client.accounted(["12_4", "12_3"]) == {"12_3": "COMPLETED", "12_4": "CANCELLED", "12_5": ""}
    assert asked.read_text() == "-X -n -P -o JobID,State -j 12_3,12_4\n"


@pytest.mark.parametrize("script", ["echo 'Slurm accounting storage is disabled' >&2; exit 1", None])
def test_without_accounting_nothing_is_known(tool, monkeypatch, script):
    if script is None:
        monkeypatch.setenv("PATH", "")
    else:
        tool("sacct", script)
    assert client.accounted(["12"]) == {}


def test_nothing_is_asked_about_no_jobs(tool):
    asked = tool("sacct", "")
    assert client.accounted([]) == {} and not asked.exists()


def test_many_jobs_are_cancelled_in_batches_and_each_once(tool, monkeypatch):
    monkeypatch.setattr(client, "BATCH", 2)
    asked = tool("scancel", "")
    assert client.cancel(["3", "1", "2", "1", "5", "4"]) is None
    assert asked.read_text() == "1 2\n3 4\n5\n"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'scancel: error: Kill job error on job id 12: Access denied' >&2; exit 1", "Access denied"),
        ("echo 'scancel: error: Kill job error on job id 12: Invalid job id specified' >&2; exit 1", None),
    ],
)
def test_what_cannot_be_cancelled_is_said_and_what_has_ended_is_not(tool, script, said):
    tool("scancel", script)
    answer = client.cancel(["12"])
    assert answer is None if said is None else said in answer and "\n" not in answer


@pytest.mark.parametrize(
    ("script", "size"),
    [("echo 'MaxArraySize            = 4001'", 4001), ("exit 1", client.DEFAULT_MAX_ARRAY_SIZE)],
)
def test_how_large_an_array_may_be(tool, script, size):
    asked = tool("scontrol", script)
    client.max_array_size.cache_clear()
    try:
        assert client.max_array_size() == size and asked.read_text() == "show config\n"
    finally:
        client.max_array_size.cache_clear()


@pytest.mark.parametrize(
    ("job", "accounting", "state"),
    [
        ("70_0", "", "FAILED"),  # the queue still knows
        ("70_1", "70_1|TIMEOUT", "TIMEOUT"),
        ("70_1", "", "CANCELLED"),  # the rest of its array is known, and it is not
        ("70_1", "70_1|RUNNING", "CANCELLED"),  # what the accounting did not hear the end of
        ("71_0", "71_0|RUNNING", "RUNNING"),
        ("71_0", "", "unknown"),
        ("7", "", "unknown"),  # no array, though 70 begins alike
    ],
)
def test_how_a_job_ended(tool, job, accounting, state):
    tool("sacct", f"echo '{accounting}'")
    assert end_states([job], View((), {"70_0": Entry("FAILED")}, {})) == {job: state}


def test_what_waits_or_runs_is_counted_by_job_and_state(tool, ledger):
    tool(
        "squeue",
        "echo '70_0|RUNNING|None|smi-1'; echo '70_1|PENDING|Priority|smi-1'; echo '81|COMPLETED|None|smi-2'",
    )
    found = look_at_slurm(ledger)
    assert {name: place.job for name, place in found.active.items()} == {
        TASKS[0].name: "70_0",
        TASKS[1].name: "70_1",
    }
    assert queued_lines(ledger.store, TASKS) == [
        "SLURM job 70: 1 task pending (Priority)",
        "SLURM job 70: 1 task running",
    ]
    assert queued_lines(ledger.store, TASKS[2:]) == []


def test_a_controller_that_does_not_answer_is_said(tool, ledger):
    tool("squeue", "exit 1")
    assert look_at_slurm(ledger) is None
    assert queued_lines(ledger.store, TASKS) == [
        "SLURM does not answer: what waits in its queue is not known"
    ]


def test_submissions_are_forgotten_once_their_tasks_are_settled(ledger, monkeypatch):
    monkeypatch.setattr(ledger.store, "recorded", lambda: {task.name for task in TASKS})
    view.forget_settled(ledger, View(tuple(ledger.all()), {}, {TASKS[2].name: None}))
    assert [submission.job for submission in ledger.all()] == ["81"]

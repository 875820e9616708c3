"""Claims: one holder at a time, taken over on evidence and never from the living."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest

from bench.engine.store import holders
from bench.engine.store.claims import Claims
from bench.engine.store.holders import Holder, myself


@pytest.fixture
def claims(tmp_path) -> Claims:
    (tmp_path / "claims").mkdir()
    (tmp_path / "tmp").mkdir()
    return Claims(tmp_path / "claims", tmp_path / "tmp", silence=60.0)


def plant(claims: Claims, name: str, holder: Holder, age: float = 0.0) -> None:
    path = claims.folder / f"{name}.json"
    path.write_text(json.dumps(asdict(holder)))
    then = time.time() - age
    os.utime(path, (then, then))


def dead_process() -> Holder:
    """A holder like those of this machine, of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return replace(myself(), pid=child.pid)


def test_one_holder_at_a_time(claims):
    first = claims.take("task")
    assert first is not None and first.is_mine()
    assert claims.take("task") is None
    assert claims.take("other") is not None
    assert set(claims.held()) == {"task", "other"}
    first.release()
    assert claims.take("task") is not None


def test_a_dead_process_loses_its_claim(claims):
    plant(claims, "task", dead_process())
    assert claims.held() == {}
    assert claims.take("task") is not None


def test_a_process_id_used_again_is_another_process(claims):
    plant(claims, "task", replace(myself(), started="12"))
    assert claims.take("task") is not None


def test_a_living_process_keeps_its_claim_however_silent(claims):
    plant(claims, "task", myself(), age=10_000)
    assert claims.take("task") is None


def test_a_zombie_is_dead(claims):
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    started = holders._start_time(child.pid)
    plant(claims, "task", replace(myself(), pid=child.pid, started=started))
    assert claims.take("task") is None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, but not yet collected
    try:
        assert claims.take("task") is not None
    finally:
        child.communicate()


@pytest.mark.parametrize(("age", "taken"), [(0, False), (50, False), (70, True)])
def test_on_another_machine_silence_decides(claims, age, taken):
    plant(claims, "task", replace(myself(), host="elsewhere"), age=age)
    assert (claims.take("task") is not None) == taken


def test_a_heartbeat_breaks_the_silence(claims):
    holder = replace(myself(), host="elsewhere")
    plant(claims, "task", holder, age=1000)
    (claims.folder / f"task.{holder.token}.beat").write_text('{"done": 1, "total": 2}')
    assert claims.take("task") is None
    assert claims.progress("task", holder) == {"done": 1, "total": 2}


def test_a_holder_beats_and_tells_its_progress(claims):
    claim = claims.take("task")
    claim.say(3, 10, {"loss": 0.5, "odd": float("nan")})
    deadline = time.time() + 30
    while not claims.progress("task", claim.holder).get("done") and time.time() < deadline:
        time.sleep(0.05)
    assert claims.progress("task", claim.holder) == {"done": 3, "total": 10, "figures": {"loss": 0.5}}
    claim.release()
    assert not list(claims.folder.iterdir())


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        ("echo RUNNING", False),
        ("echo COMPLETED", True),
        ("echo STOPPED", False),  # keeps its place, and its process may go on
        ("echo A_STATE_OF_TOMORROW", False),
        ("exit 1", False),
    ],
)
def test_slurm_is_asked_about_jobs_elsewhere(claims, tmp_path, monkeypatch, answer, taken):
    tool = tmp_path / "squeue"
    tool.write_text(f"#!/bin/sh\n{answer}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    holders._ask_slurm.cache_clear()
    plant(claims, "task", replace(myself(), host="node7", slurm_job_id="12_3"))
    assert (claims.take("task") is not None) == taken


def test_a_requeued_job_takes_over_from_its_earlier_start(claims, monkeypatch):
    plant(claims, "task", replace(myself(), host="node7", slurm_job_id="12_3"))
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert claims.take("task") is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert claims.take("task") is not None


@pytest.mark.parametrize(("age", "taken"), [(0, False), (1000, True)])
def test_an_unreadable_claim_counts_while_it_is_young(claims, age, taken):
    path = claims.folder / "task.json"
    path.write_text("{")
    os.utime(path, (time.time() - age, time.time() - age))
    assert (claims.take("task") is not None) == taken


def test_a_takeover_that_was_killed_half_way_does_not_block(claims):
    dead = dead_process()
    plant(claims, "task", dead)
    (claims.folder / "task.takeover").write_text(json.dumps(asdict(dead)))
    assert claims.take("task") is not None
    assert not (claims.folder / "task.takeover").exists()


RACER = """
import sys
from pathlib import Path
from bench.engine.store.claims import Claims
claims = Claims(Path(sys.argv[1]) / "claims", Path(sys.argv[1]) / "tmp")
print("ready", flush=True)
sys.stdin.readline()
won = [name for name in sys.argv[2].split(",") if claims.take(name)]
print(",".join(won), flush=True)
sys.stdin.readline()
"""


def test_many_processes_race_for_dead_claims_and_each_goes_to_one(claims, tmp_path):
    names = [f"task{number}" for number in range(40)]
    for name in names[:30]:
        plant(claims, name, dead_process() if name == names[0] else replace(myself(), started="12"))
    command = [sys.executable, "-c", RACER, str(tmp_path), ",".join(names)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(command, **pipes) for _ in range(6)]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [name for racer in racers for name in racer.stdout.readline().strip().split(",") if name]
    for racer in racers:
        racer.communicate("end\n")
    assert sorted(won) == sorted(names)


def test_without_hard_links_claims_still_exclude(claims, monkeypatch):
    def no_links(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert claims.take("task") is not None
    assert claims.take("task") is None

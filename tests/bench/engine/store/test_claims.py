"""Claims: one holder at a time, taken over on evidence and never from the living."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest

from bench.engine import atomic, slurm_tools
from bench.engine.store import claims as module
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


def fake_squeue(folder, monkeypatch, script: str) -> None:
    tool = folder / "squeue"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    holders._known.clear()


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
        ("echo '12_3|RUNNING'", False),
        ("echo '12_3|COMPLETED'", True),
        ("echo '12_3|STOPPED'", False),  # keeps its place, and its process may go on
        ("echo '12_3|A_STATE_OF_TOMORROW'", False),
        ("echo '12_4|COMPLETED'", False),
        (
            "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1",
            False,
        ),  # its heartbeat decides
        ("exit 1", False),
    ],
)
def test_slurm_is_asked_about_jobs_elsewhere(claims, tmp_path, monkeypatch, answer, taken):
    fake_squeue(tmp_path, monkeypatch, answer)
    plant(claims, "task", replace(myself(), host="node7", slurm_job_id="12_3"))
    assert (claims.take("task") is not None) == taken


@pytest.mark.parametrize(("age", "taken"), [(0, False), (70, True)])
def test_a_job_that_squeue_does_not_know_lives_while_it_beats(claims, tmp_path, monkeypatch, age, taken):
    """It may be another cluster's, or a user's whose jobs the site hides."""
    fake_squeue(tmp_path, monkeypatch, "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    plant(claims, "task", replace(myself(), host="node7", slurm_job_id="12"), age)
    assert (claims.take("task") is not None) == taken


def test_two_clusters_count_their_jobs_apart(claims, tmp_path, monkeypatch):
    fake_squeue(tmp_path, monkeypatch, "echo '12|COMPLETED'")
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho 'ClusterName             = here'\n")
    (tmp_path / "scontrol").chmod(0o755)
    slurm_tools.asked_cluster.cache_clear()
    for cluster in ("here", "there"):
        plant(claims, cluster, replace(myself(), host="node7", slurm_job_id="12", cluster=cluster))
    assert set(claims.held()) == {"there"}
    slurm_tools.asked_cluster.cache_clear()


def test_a_claim_says_which_cluster_it_is_of(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "here")
    assert myself().cluster == "here"


def test_a_claim_of_an_earlier_version_can_be_read(claims):
    value = asdict(myself())
    del value["cluster"]
    (claims.folder / "task.json").write_text(json.dumps(value))
    assert claims.take("task") is None


def test_one_question_to_slurm_however_many_claims_there_are(claims, tmp_path, monkeypatch):
    calls = tmp_path / "calls"
    fake_squeue(tmp_path, monkeypatch, f"echo x >> {calls}; echo '70_3|COMPLETED'; echo '70_4|RUNNING'")
    for index in range(20):
        token = f"{index:032x}"
        plant(claims, f"task{index}", replace(myself(), host="n", slurm_job_id=f"70_{index}", token=token))
    assert len(claims.held()) == 19
    assert calls.read_text() == "x\n"


def test_heartbeats_are_few_however_much_there_is_to_say(claims, monkeypatch):
    """A thousand workers beat into one folder of a file server: each at most once in ten seconds, here a hundred times
    as fast."""
    beats = []
    monkeypatch.setattr(module, "BEAT", module.BEAT / 100)
    monkeypatch.setattr(module, "FIRST_BEAT", module.FIRST_BEAT / 100)
    monkeypatch.setattr(atomic, "overwrite", lambda path, data: beats.append(data))
    began = time.monotonic()
    claim = claims.take("task")
    while len(beats) < 4:
        claim.say(len(beats), 1000, {"loss": time.monotonic()})
        time.sleep(0.005)
    claim.release()
    assert len(beats) <= 1 + 100 * (time.monotonic() - began) / 10


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

"""Holders: who they work for, where they are, and telling their sweeps to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace

import pytest

from bench.engine.store.claims import Claims
from bench.engine.store.holders import Holder, _start_time, myself, stop_sweeps

WAITS = "import signal; print('ready', flush=True); signal.pause()"


@pytest.fixture
def sweeps() -> Iterator[list[subprocess.Popen]]:
    """Two processes that wait to be told."""
    started = [
        subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for one in started:
        assert one.stdout.readline() == "ready\n"
    yield started
    for one in started:
        one.kill()
        one.communicate()


def of(sweep: subprocess.Popen, **more) -> Holder:
    """A holder that works for this sweep."""
    leader = {"leader": sweep.pid, "leader_started": _start_time(sweep.pid)}
    return replace(myself(), **{**leader, **more})


def test_sweeps_here_are_told_once_and_others_are_named(sweeps):
    first, second = sweeps
    elsewhere = [replace(myself(), host=host, pid=7) for host in ("node2", "node1")]
    said = stop_sweeps([of(first), of(first), of(second), *elsewhere])
    assert said == (
        "told 2 sweeps on this machine to stop, not reached from here: node1, process 7; node2, process 7"
    )
    assert [one.wait(60) for one in sweeps] == [-signal.SIGTERM] * 2


def test_one_sweep_is_one_and_a_job_of_slurm_is_left_to_slurm(sweeps):
    first, second = sweeps
    assert stop_sweeps([of(first)]) == "told 1 sweep on this machine to stop"
    assert first.wait(60) == -signal.SIGTERM
    said = stop_sweeps([of(second, slurm_job_id="12_3")])
    assert said.startswith("not reached from here: ") and said.endswith("SLURM job 12_3")
    assert second.poll() is None


def test_a_process_id_used_again_is_not_told(sweeps):
    said = stop_sweeps([of(sweeps[0], leader_started="12")])
    assert said == "nothing of this grid runs on this machine" and sweeps[0].poll() is None


def test_a_claim_names_the_sweep_it_is_held_for(tmp_path):
    claims = Claims(tmp_path, tmp_path)
    claim = claims.take("task", leader=os.getppid())
    try:
        assert claim.holder.leader == os.getppid() and claim.holder.pid == os.getpid()
        assert claim.holder.leader_started == _start_time(os.getppid())
    finally:
        claim.release()


def test_what_the_dead_left_is_buried_and_the_living_stay(tmp_path):
    claims = Claims(tmp_path, tmp_path)
    for name, holder in {"living": myself(), "dead": replace(myself(), started="12")}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(asdict(holder)))
    claims.bury()
    assert [path.name for path in tmp_path.iterdir()] == ["living.json"]

"""kill -9 at random moments: nothing finished is lost, nothing is done twice, the table comes out the same."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
from processes import children
from toy_runs import Toy, without_times

MODES = {"serial": ["--executor", "serial"], "local": ["--executor", "local", "--jobs", "2"]}


def kill_again_and_again(folder: Path, mode: str, kills: int, seed: int) -> None:
    """Kill sweeps of one store at random moments until `kills` have been survived, on fresh stores as they fill."""
    chance = random.Random(seed)
    reference = Toy(folder / "reference")
    began = time.monotonic()
    assert reference.run(*MODES[mode])[0] == 0
    length = time.monotonic() - began
    table = reference.table.read_bytes()
    records = {name: without_times(record) for name, record in reference.done().items()}

    survived = rounds = 0
    while survived < kills:
        toy = Toy(folder / f"round{rounds}")
        rounds += 1
        before: dict[str, bytes] = {}
        while True:
            last = survived >= kills
            process = toy.start(*MODES[mode])
            if not last:
                wait(process, chance.uniform(0.0, length))
            if last or process.poll() is not None:
                out, err = process.communicate(timeout=300)
                assert process.returncode == 0, out + err
                break
            victim(process.pid, mode, chance)
            process.communicate(timeout=300)
            survived += 1
            now = toy.done()
            assert before.items() <= now.items()  # nothing finished was lost or made again
            before = now
            if mode == "local" and process.returncode == 0:
                break  # a worker was the victim, and the sweep saw it through
        final = toy.done()
        assert before.items() <= final.items()
        assert {name: without_times(record) for name, record in final.items()} == records
        assert all(times <= 1 for times in toy.times_finished().values())
        assert toy.table.read_bytes() == table
        assert toy.store.claims.held() == {}


def wait(process, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


def victim(pid: int, mode: str, chance: random.Random) -> None:
    """The sweep, one of its workers, or all of them at once."""
    how = chance.choice(["sweep"] if mode == "serial" else ["sweep", "worker", "all"])
    with contextlib.suppress(ProcessLookupError):
        if how == "all":
            os.killpg(pid, signal.SIGKILL)
            return
        workers = children(pid) if how == "worker" else []
        os.kill(chance.choice(workers) if workers else pid, signal.SIGKILL)


@pytest.mark.parametrize("mode", MODES)
def test_a_few_kills(tmp_path, mode):
    kill_again_and_again(tmp_path, mode, kills=4, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(1, 6))
def test_a_hundred_kills(tmp_path, mode, seed):
    kill_again_and_again(tmp_path, mode, kills=10, seed=seed)

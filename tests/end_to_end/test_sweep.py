"""The sweep's command line on a toy suite: what it says, what it leaves, how it is stopped and goes on."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from unittest.mock import ANY

import pytest
import toy_suite
from toy_runs import Toy, without_times

from bench.sweep import main


@pytest.fixture
def toy(tmp_path) -> Toy:
    return Toy(tmp_path / "toy")


@pytest.fixture
def command(toy, monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(toy.folder)

    def command(*options: str) -> tuple[int, str, str]:
        code = main(["--grid", "toy.yaml", *options], toy_suite.SUITE)
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def test_the_first_line_names_the_scale_and_the_switch(command):
    first = command("--dry-run")[1].splitlines()[0]
    assert "toy" in first and "'digits'" in first and "--scale paper" in first
    code, _, error = command("--scale", "huge")
    assert code == 2 and "allowed: digits, paper" in error


def test_a_dry_run_runs_nothing(command, toy):
    code, out, _ = command("--dry-run")
    assert code == 0
    assert out.splitlines()[-1].split()[:7] == ["all", "14", "0", "0", "0", "0", "14"]
    assert not toy.store.root.exists() and not toy.table.exists()


def test_a_sweep_ends_with_its_table_and_does_nothing_twice(command, toy):
    code, out, error = command()
    assert (code, error) == (0, "")
    assert toy.table.read_text() in out and "table: results/digits/toy.md" in out
    assert "14 tasks: 14 done; 14 brought to an end now" in out
    done, table = toy.done(), toy.table.read_bytes()
    code, out, _ = command()
    assert code == 0 and "0 brought to an end now" in out and "executor" not in out
    assert toy.done() == done and toy.table.read_bytes() == table


def test_watching_a_settled_sweep_shows_it_once_and_ends(command):
    command("--quiet")
    code, out, error = command("--status", "--watch")
    assert (code, error) == (0, "") and out.count("14 of 14 tasks settled") == 1
    assert "time left" in out and "last leaf m" in out


def test_estimates_come_from_records(command):
    assert "unknown length" in command("--dry-run")[1]
    command("--only", "m0")
    assert "unknown length" not in command("--dry-run")[1]


def test_quiet_says_nothing_when_all_is_well(command):
    assert command("--quiet") == (0, "", "")


def test_only_runs_what_it_names_and_what_that_needs(command, toy):
    assert command("--only", "leaf m0 plain 0 W4/A8")[0] == 0
    assert sorted(name.split("-")[0] for name in toy.done()) == ["leaf", "middle", "root"]
    assert "not run" in toy.table.read_text()


def test_the_papers_scale_wants_a_gpu_or_leave(command, monkeypatch):
    monkeypatch.setattr("bench.engine.devices.gpu_count", lambda: 0)
    monkeypatch.setenv("PATH", "")
    code, _, error = command("--scale", "paper")
    assert code == 2 and "--allow-cpu" in error and "about 1 h" in error
    assert command("--scale", "paper", "--allow-cpu", "--quiet")[0] == 0


def test_the_pool_and_the_serial_executor_agree(tmp_path):
    serial, pool = Toy(tmp_path / "serial"), Toy(tmp_path / "pool")
    assert serial.run("--executor", "serial")[0] == 0
    code, out, error = pool.run("--jobs", "3")
    assert code == 0, error
    assert "executor: local (--jobs 3)" in out
    ours, theirs = serial.done(), pool.done()
    assert {name: without_times(record) for name, record in ours.items()} == {
        name: without_times(record) for name, record in theirs.items()
    }
    assert serial.table.read_bytes() == pool.table.read_bytes()


@pytest.mark.parametrize("options", [["--executor", "serial"], ["--jobs", "2"]], ids=["serial", "local"])
def test_failures_are_told_by_cause_and_the_rest_goes_on(toy, options, monkeypatch):
    monkeypatch.setenv("TOY_NAME", "middle m0 plain 0")
    monkeypatch.setenv("TOY_BEHAVIOUR", "nan")
    code, _, error = toy.run(*options)
    assert code == 1
    assert "1 task failed: non-finite loss" in error and "middle m0 plain 0: loss became nan" in error
    assert "2 tasks blocked by middle m0 plain 0" in error and "--retry-failed" in error
    log = error.split("(log: ")[1].split(")")[0]
    assert "Traceback" in (toy.folder / log).read_text()
    code, out, _ = toy.run("--status")
    assert code == 0 and "non-finite loss" in out
    listed = {cells[0]: cells for cells in (re.split("  +", line) for line in out.splitlines())}
    assert listed["middle m0 plain 0"][1:] == ["failed", ANY, log]
    assert listed["leaf m0 plain 0 W4/A8"][1:] == ["blocked", "-", "-"]
    assert listed["root m0"][1] == "done" and re.fullmatch(r"\d+ s|\d+ min.*", listed["root m0"][2])
    assert toy.run(*options)[0] == 1  # not tried again unasked
    monkeypatch.setenv("TOY_BEHAVIOUR", "")
    code, out, error = toy.run(*options, "--retry-failed")
    assert code == 0, error
    assert "14 done; 3 brought to an end now" in out


def test_a_task_that_kills_its_workers_fails_alone(toy, monkeypatch):
    monkeypatch.setenv("TOY_NAME", "leaf m0 plain 0 W4/A8")
    monkeypatch.setenv("TOY_BEHAVIOUR", "die")
    code, out, error = toy.run("--jobs", "2")
    assert code == 1
    assert "1 task failed: worker died" in error and "SIGKILL" in error
    assert "13 done" in out


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR2, marks=pytest.mark.slow),
    ],
    ids=lambda number: number.name,
)
@pytest.mark.parametrize("options", [["--executor", "serial"], ["--jobs", "2"]], ids=["serial", "local"])
def test_told_to_stop_a_sweep_saves_its_state_and_goes_on_later(tmp_path, options, number, monkeypatch):
    toy = Toy(tmp_path / "toy")
    monkeypatch.setenv("TOY_NAME", "leaf m0 plain 0 W4/A8")
    monkeypatch.setenv("TOY_BEHAVIOUR", "wait")
    process = toy.start(*options)
    until(lambda: holds(toy, "leaf m0 plain 0 W4/A8"))
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "goes on from here" in error and "Traceback" not in error
    assert not list((toy.store.root / "claims").glob("*.json"))
    done = toy.done()
    assert done
    monkeypatch.setenv("TOY_BEHAVIOUR", "")
    assert toy.run(*options)[0] == 0
    assert done.items() <= toy.done().items()


def test_of_a_long_plan_status_lists_what_needs_a_look(command, monkeypatch):
    assert len(re.findall("to do +- +-$", command("--status")[1], re.MULTILINE)) == 14
    monkeypatch.setattr("bench.cli.status.LISTED", 13)
    lines = command("--status")[1].splitlines()
    assert lines[-1] == "and 14 tasks more; --only PATTERN lists those that fit"


def test_status_from_another_terminal_and_cancel(toy, monkeypatch):
    monkeypatch.setenv("TOY_NAME", "root m1")
    monkeypatch.setenv("TOY_BEHAVIOUR", "wait")
    process = toy.start("--executor", "serial")
    until(lambda: holds(toy, "root m1"))
    code, out, _ = toy.run("--status")
    assert code == 0 and "running root m1" in out and f"process {process.pid}" in out
    code, out, _ = toy.run("--cancel", "--executor", "serial")
    assert code == 0 and "told 1 sweep" in out
    process.communicate(timeout=120)
    assert process.returncode == 130


def test_two_sweeps_at_once_do_each_task_once(tmp_path):
    toy = Toy(tmp_path / "toy", toy_suite.GRID)
    sweeps = [toy.start("--executor", "serial"), toy.start("--jobs", "2"), toy.start("--executor", "serial")]
    for process in sweeps:
        out, error = process.communicate(timeout=300)
        assert process.returncode == 0, out + error
    assert set(toy.times_finished().values()) == {1}
    assert len(toy.done()) == 26


def test_a_sweep_takes_over_from_one_that_was_killed(toy, monkeypatch):
    monkeypatch.setenv("TOY_NAME", "root m0")
    monkeypatch.setenv("TOY_BEHAVIOUR", "wait")
    process = toy.start("--executor", "serial")
    until(lambda: holds(toy, "root m0"))
    process.kill()
    process.communicate()
    monkeypatch.setenv("TOY_BEHAVIOUR", "")
    assert toy.run("--executor", "serial")[0] == 0


def test_damage_anywhere_is_named_and_made_again(command, toy):
    """Records and artifacts at random bytes: flipped, cut off, emptied, gone."""
    chance = random.Random(0)
    assert command("--quiet")[0] == 0
    table = toy.table.read_bytes()
    records = {name: without_times(record) for name, record in toy.done().items()}
    for _ in range(40):
        files = [
            path
            for name in ("records", "artifacts")
            for path in (toy.store.root / name).rglob("*")
            if path.is_file()
        ]
        hit = chance.sample(files, chance.randint(1, 3))
        for path in hit:
            spoil(path, chance)
        code, out, error = command()
        assert (code, error) == (0, "")
        named = [line for line in out.splitlines() if line.startswith("damaged: ")]
        for path in hit:
            if path.exists() or "records" not in path.parts:
                assert any(path.name in line or path.parent.name in line for line in named)
        assert {name: without_times(record) for name, record in toy.done().items()} == records
        assert toy.table.read_bytes() == table


def spoil(path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    how = chance.choice(["flip", "cut", "empty", "remove"])
    if how == "remove" and "records" not in path.parts:
        path.unlink()
        return
    if how == "cut":
        data = data[: chance.randrange(len(data))]
    elif how == "empty":
        data = bytearray()
    else:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(data))


def holds(toy: Toy, label: str) -> bool:
    names = {task.label: task.name for task in toy.plan.tasks}
    return (toy.store.root / "claims" / f"{names[label]}.json").exists()


def until(true, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)

"""Two stores into one: all that is done is brought whole, contradictions are named, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import pytest
import toy_suite

from bench.cli import merge as command
from bench.engine import atomic
from bench.engine.store import Store, seal
from bench.engine.task import Task
from bench.errors import StoreError

TASKS = [Task("root", {"name": f"root {number}"}, label=f"root {number}") for number in range(8)]


@pytest.fixture
def one(tmp_path) -> Store:
    return toy_suite.store_with(tmp_path / "one", TASKS[:5])


@pytest.fixture
def other(tmp_path) -> Store:
    return toy_suite.store_with(tmp_path / "other", TASKS[3:])


def files(store: Store) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(store.root.rglob("*")) if path.is_file()}


def rewrite(store: Store, task: Task, **changes) -> None:
    """A record with other fields and a digest that fits."""
    record = json.loads(store.record_path(task).read_bytes())
    atomic.write_json(store.record_path(task), seal({**record, **changes}))


def merge(source: Store, target: Store, *more: str) -> int:
    return command.main([str(source.root), str(target.root), *more])


def test_everything_done_in_either_is_done_in_the_target(one, other, capsys):
    before = files(one)
    assert merge(one, other) == 0
    assert "3 tasks brought" in capsys.readouterr().out
    for task in TASKS:
        assert other.find(task, thorough=True).status == "done"
    for task in TASKS[:5]:
        assert one.record(task)["artifacts"] == other.record(task)["artifacts"] or task in TASKS[3:]
    assert one.record(TASKS[0]) == other.record(TASKS[0])
    assert other.log_path(TASKS[0]).read_bytes() == one.log_path(TASKS[0]).read_bytes()
    assert files(one) == before  # the source is only read
    assert not list((other.root / "tmp").iterdir()) and not list((other.root / "claims").iterdir())


def test_what_was_brought_is_taken_as_intact_without_reading_it(one, other):
    """By size and time of change, as a store's own: else each look at a merged store reads every byte."""
    merge(one, other)
    for file, said in other.record(TASKS[0])["artifacts"].items():
        assert (other.artifacts(TASKS[0]) / file).stat().st_mtime_ns == said["changed_ns"]


def test_a_second_merge_brings_nothing(one, other, capsys):
    merge(one, other)
    before = files(other)
    assert merge(one, other) == 0
    assert "0 tasks brought" in capsys.readouterr().out
    assert files(other) == before


def test_a_dry_run_writes_nothing(one, other, capsys):
    before = files(other)
    assert merge(one, other, "--dry-run") == 0
    assert "3 tasks to bring" in capsys.readouterr().out
    assert files(other) == before


def test_other_figures_of_one_task_are_a_conflict_and_nothing_is_written(one, other, capsys):
    rewrite(one, TASKS[4], metrics={"value": -1.0})
    before = files(other)
    assert merge(one, other) == 1
    said = capsys.readouterr().out
    assert "conflict: root 4" in said and "value" in said and "1 task done in both" in said
    assert files(other) == before


def test_other_files_of_one_task_are_a_conflict(one, other, capsys):
    file = one.artifacts(TASKS[3]) / "value.txt"
    file.write_text("7777777")
    entry = {"size": 7, "sha256": atomic.sha256_of(file), "changed_ns": file.stat().st_mtime_ns}
    rewrite(one, TASKS[3], artifacts={"value.txt": entry})
    assert merge(one, other) == 1
    assert "value.txt differ" in capsys.readouterr().out


def test_figures_of_time_are_no_conflict(one, other):
    metrics = one.record(TASKS[3])["metrics"]
    rewrite(one, TASKS[3], metrics={**metrics, "seconds": 1.0, "stages": [{"iterations_per_second": 3.0}]})
    rewrite(other, TASKS[3], metrics={**metrics, "seconds": 2.0, "stages": [{"iterations_per_second": 4.0}]})
    assert merge(one, other) == 0


def test_a_damaged_file_is_named_and_left_out_and_the_rest_is_brought(one, other, capsys):
    file = one.artifacts(TASKS[1]) / "value.txt"
    stat = file.stat()
    file.write_bytes(bytes(255 - byte for byte in file.read_bytes()))  # as long, and at the same time
    os.utime(file, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    assert merge(one, other) == 1
    said = capsys.readouterr().out
    assert f"damaged: artifact {file}" in said and "1 damaged in" in said
    assert other.find(TASKS[1]).status == "missing"
    assert other.find(TASKS[0], thorough=True).status == other.find(TASKS[2], thorough=True).status == "done"


def test_a_damaged_record_is_named(one, other, capsys):
    path = one.record_path(TASKS[0])
    path.write_bytes(path.read_bytes()[:-20])
    assert merge(one, other) == 1
    assert f"damaged: record {path}" in capsys.readouterr().out


@pytest.mark.parametrize("part", ["../../../escaped", "/tmp/escaped", "a/../../b"])
def test_a_record_that_names_a_file_outside_is_left_out(part, one, other, tmp_path, capsys):
    record = one.record(TASKS[0])
    target = one.artifacts(TASKS[0]) / part
    if not part.startswith("/"):
        target.parent.mkdir(parents=True, exist_ok=True)
        (one.artifacts(TASKS[0]) / "a").mkdir(exist_ok=True)
        target.write_text("x")
        entry = {"size": 1, "sha256": atomic.sha256_of(target), "changed_ns": target.stat().st_mtime_ns}
    else:
        entry = record["artifacts"]["value.txt"]
    rewrite(one, TASKS[0], artifacts={part: entry})
    assert merge(one, other) == 1
    assert "damaged: " in capsys.readouterr().out
    assert other.find(TASKS[0]).status == "missing"


def test_a_failure_is_not_brought_and_gives_way_to_a_result(tmp_path, one, monkeypatch):
    monkeypatch.setenv("TOY_NAME", "root 0")
    monkeypatch.setenv("TOY_BEHAVIOUR", "raise")
    failing = toy_suite.store_with(tmp_path / "failing", [TASKS[0]])
    assert failing.find(TASKS[0]).status == "failed"
    empty = toy_suite.store_with(tmp_path / "empty", [])
    assert merge(failing, empty) == 0
    assert empty.find(TASKS[0]).status == "missing"
    assert merge(one, failing) == 0
    assert failing.find(TASKS[0], thorough=True).status == "done"


def test_a_task_that_runs_in_the_target_is_left_to_it(one, other, capsys):
    claim = other.claims.take(TASKS[0].name)
    try:
        assert merge(one, other) == 1
    finally:
        claim.release()
    assert "1 run in" in capsys.readouterr().out
    assert other.find(TASKS[0]).status == "missing" and other.find(TASKS[1]).status == "done"


def test_a_merge_that_was_killed_goes_on(one, other, monkeypatch):
    calls = []

    def killed(*arguments, **more):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **more)

    real = Store.adopt
    monkeypatch.setattr(Store, "adopt", killed)
    with pytest.raises(KeyboardInterrupt):
        merge(one, other)
    assert sum(other.find(task).status == "done" for task in TASKS[:3]) == 1
    monkeypatch.setattr(Store, "adopt", real)
    assert merge(one, other) == 0
    assert all(other.find(task, thorough=True).status == "done" for task in TASKS)


def finish(store: Store, task: Task) -> None:
    claim = store.claims.take(task.name)
    store.finish(task, claim, store.open_work(task, claim), {**store.record(TASKS[0]), "metrics": {}})
    claim.release()


def test_what_an_earlier_version_has_left_is_passed_over(one, other):
    """A store that went on with newer code still holds what the older one made."""
    now = Task("quantize", {"name": "now"})
    finish(one, Task("quantize", {"name": "old"}, version=99))
    finish(one, now)
    assert merge(one, other) == 0
    assert (
        other.find(now).status == "done"
        and len([n for n in other.recorded() if n.startswith("quantize")]) == 1
    )


def test_results_of_another_version_alone_are_refused(one, other):
    finish(one, Task("quantize", {"name": "old"}, version=99))
    before = files(other)
    with pytest.raises(StoreError, match=r"version 99 of the task 'quantize', this bench makes version 1"):
        merge(one, other)
    assert files(other) == before


def test_what_is_no_store_is_refused(one, tmp_path):
    with pytest.raises(StoreError, match="is no store"):
        merge(one, Store(tmp_path / "nowhere"))
    with pytest.raises(StoreError, match="are one store"):
        merge(one, one)
    other = toy_suite.store_with(tmp_path / "newer", [])
    atomic.write_json(other.root / "store.json", {"layout": 3})
    with pytest.raises(StoreError, match="layout 3"):
        merge(one, other)


def test_a_disk_without_room_is_said_before_anything_is_written(one, other, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    before = {task: other.find(task).status for task in TASKS}
    with pytest.raises(StoreError, match=r"1\.0 kB free"):
        merge(one, other)
    assert {task: other.find(task).status for task in TASKS} == before

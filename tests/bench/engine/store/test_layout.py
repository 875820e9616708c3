"""Layouts of stores: an earlier one is migrated whole, others are refused, and nothing is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import toy_suite

from bench.cli import store as command
from bench.engine.store import Store, layout
from bench.engine.task import Task
from bench.engine.worker import run_task
from bench.errors import StoreError

TASKS = [Task("root", {"name": f"root {number}"}) for number in range(12)]


@pytest.fixture
def store(tmp_path) -> Store:
    """With twelve tasks done."""
    return toy_suite.store_with(tmp_path / "store", TASKS)


@pytest.fixture
def old(store) -> Store:
    """The same as layout 1 had it."""
    for folder in layout.SHARDED:
        for path in list((store.root / folder).glob("*/*")):
            os.rename(path, store.root / folder / path.name)
        for shard in list((store.root / folder).glob("??")):
            shard.rmdir()
    (store.root / layout.FILE).unlink()
    return store


def files(store: Store) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}


def done(store: Store) -> list[str]:
    return [store.find(task, thorough=True).status for task in TASKS]


def run(action: str, store: Store, *more: str) -> int:
    return command.main([action, "--store", str(store.root), *more])


def test_records_and_artifacts_lie_by_the_first_digits_of_their_key(store):
    for task in TASKS:
        assert store.record_path(task) == store.root / "records" / task.key[:2] / f"{task.name}.json"
        assert (store.root / "artifacts" / task.key[:2] / task.name / "value.txt").is_file()
    assert store.recorded() == {task.name for task in TASKS}
    assert {record["key"] for record in store.records("root")} == {task.key for task in TASKS}


def test_a_store_of_an_earlier_layout_is_refused_untouched_and_migrated_whole(old, capsys):
    before = files(old)
    for use in (old.check, old.prepare):
        with pytest.raises(StoreError, match="bench store migrate") as caught:
            use()
        assert "\n" not in str(caught.value)
    assert files(old) == before
    assert run("migrate", old) == 0 and "24 moves" in capsys.readouterr().out
    assert sorted(files(old).values()) == sorted([*before.values(), (old.root / layout.FILE).read_bytes()])
    old.prepare()
    assert done(old) == ["done"] * len(TASKS)
    assert run("migrate", old) == 0 and "0 moves" in capsys.readouterr().out


@pytest.mark.parametrize("moves", [0, 1, 11, 12, 23])
def test_a_migration_that_was_killed_goes_on(old, monkeypatch, moves):
    rename, left = os.rename, [moves]

    def killed(source, target):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        rename(source, target)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        run("migrate", old)
    monkeypatch.undo()
    with pytest.raises(StoreError, match="half migrated"):
        old.prepare()
    assert run("migrate", old) == 0
    old.prepare()
    assert done(old) == ["done"] * len(TASKS)


def test_a_store_in_use_is_not_migrated(old):
    claim = old.claims.take(TASKS[0].name)
    before = files(old)
    with pytest.raises(StoreError, match="in use"):
        run("migrate", old)
    assert files(old) == before
    claim.release()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"layout": 3}', "layout 3"),
        ('{"layout": 3, "migrating": true}', "layout 3"),
        ("{", "cannot be read"),
        ("[]", "does not say"),
        ('{"layout": "2"}', "does not say"),
    ],
)
@pytest.mark.parametrize("action", ["migrate", "gc", "verify", "du"])
def test_a_store_that_is_not_understood_is_refused_untouched(store, text, said, action):
    (store.root / layout.FILE).write_text(text)
    before = files(store)
    with pytest.raises(StoreError, match=said):
        run(action, store)
    with pytest.raises(StoreError, match=said):
        store.prepare()
    assert files(store) == before


def test_what_is_no_store_is_one_line(tmp_path):
    with pytest.raises(StoreError, match="is no store"):
        run("du", Store(tmp_path))


def test_verify_names_what_is_damaged(store, capsys):
    assert run("verify", store) == 0 and "12 records" in capsys.readouterr().out
    file = store.artifacts(TASKS[0]) / "value.txt"
    changed = file.stat()
    file.write_bytes(b"9" * changed.st_size)
    os.utime(file, ns=(changed.st_atime_ns, changed.st_mtime_ns))  # only the checksum tells
    store.record_path(TASKS[1]).write_text("{")
    assert run("verify", store) == 1
    out = capsys.readouterr().out
    assert str(file) in out and TASKS[1].name in out and "2 damaged" in out


def test_gc_removes_what_nothing_needs_and_nothing_else(store, capsys):
    orphan, young = (store.root / "artifacts" / "ab" / f"root-ab{'0' * 13}{n}" for n in (1, 2))
    left, state = store.root / "tmp" / "root-x.token", store.checkpoint(TASKS[0]).parent
    for path in (orphan, young, left, state):
        path.mkdir(parents=True)
    for path in (orphan, left):
        os.utime(path, (1.0, 1.0))
    running = store.checkpoint(Task("root", {"name": "not done"})).parent
    running.mkdir()
    assert run("gc", store, "--dry-run") == 0 and all(path.exists() for path in (orphan, left, state))
    assert run("gc", store) == 0 and "3 things" in capsys.readouterr().out
    assert [path.exists() for path in (orphan, left, state, young, running)] == [False] * 3 + [True] * 2
    assert done(store) == ["done"] * len(TASKS)


def test_du_tells_the_room_by_kind(store, capsys):
    assert run("du", store) == 0
    out = capsys.readouterr().out
    assert "artifacts: root" in out and "12 files" in out


def test_a_new_store_says_its_layout(store):
    assert json.loads((store.root / layout.FILE).read_text()) == {"layout": layout.LAYOUT}


def test_a_task_looks_at_its_own_folder_however_full_the_store_is(store, monkeypatch):
    """What a task costs must not grow with what others have left in the store."""
    for number in range(256):
        (store.root / "records" / f"{number:02x}").mkdir(exist_ok=True)
    listed = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path=".": listed.append(Path(path)) or listdir(path))
    task = Task("root", {"name": "one more"})
    run_task(store, task, kinds=toy_suite.KINDS)
    assert {path.name for path in listed if "records" in path.parts} == {task.key[:2]}

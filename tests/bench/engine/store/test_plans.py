"""Kept plans and what looks have seen: states as without them, and none of it once anything has changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import toy_suite

from bench import sweep
from bench.engine.plan import Plan
from bench.engine.states import survey
from bench.engine.store import Store, plans
from bench.engine.task import Task
from bench.engine.worker import run_task

ROOT = Task("root", {"name": "root", "seed": 0}, label="the root")
LEAVES = [
    Task("leaf", {"name": "leaf", "seed": seed}, {"root": ROOT}, label=f"leaf {seed}", expected=seed / 2)
    for seed in range(3)
]
PLAN = Plan((ROOT, *LEAVES))


@pytest.fixture
def store(tmp_path) -> Store:
    """With the root and one leaf done."""
    return toy_suite.store_with(tmp_path / "store", (ROOT, LEAVES[0]))


def shown(states) -> dict[str, tuple]:
    return {name: (state.status, state.detail, state.damage) for name, state in states.items()}


def test_a_kept_plan_has_the_tasks_names_labels_inputs_likenesses_and_what_is_expected(store):
    plans.keep(store, "g.s", {"a": 1}, PLAN)
    found = plans.recall(store, "g.s", {"a": 1})
    told = [(task.name, task.label, task.likeness, task.expected) for task in found.tasks]
    assert told == [(task.name, task.label, task.likeness, task.expected) for task in PLAN.tasks]
    assert [[i.name for i in t.inputs.values()] for t in found.tasks] == [[], *[[ROOT.name]] * 3]
    assert found.kinds == PLAN.kinds and found.tasks[1].likeness == found.tasks[2].likeness != ROOT.likeness


def test_it_is_recalled_for_what_it_was_made_from_alone(store):
    plans.keep(store, "g.s", {"a": 1}, PLAN)
    assert plans.recall(store, "g.s", {"a": 2}) is None
    assert plans.recall(store, "other.s", {"a": 1}) is None


DAMAGES = [lambda data: data[:-9], lambda data: data.replace(b"leaf 1", b"leaf 9"), lambda _: b""]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_counts_as_not_there(damage, store):
    plans.keep(store, "g.s", {}, PLAN)
    path = store.root / "plans/g.s.jsonl"
    path.write_bytes(damage(path.read_bytes()))
    assert plans.recall(store, "g.s", {}) is None


def test_a_look_with_what_was_seen_finds_what_one_without_it_does(store):
    seen = plans.Seen(store, "g.s")
    first = survey(PLAN, store, seen)
    seen.save()
    again = survey(PLAN, store, plans.Seen(store, "g.s"))
    assert shown(first) == shown(again) == shown(survey(PLAN, store))
    record = store.record(LEAVES[0])
    kept = again[LEAVES[0].name].record
    assert {name: kept[name] for name in ("seconds", "finished")} == {
        name: record[name] for name in ("seconds", "finished")
    }


def test_records_that_were_seen_are_not_read_again_until_they_change(store, monkeypatch):
    seen = plans.Seen(store, "g.s")
    survey(PLAN, store, seen)
    read = []
    find = Store.find
    monkeypatch.setattr(
        Store, "find", lambda self, task, *a, **k: read.append(task.name) or find(self, task, *a, **k)
    )
    survey(PLAN, store, seen)
    assert read == []
    store.forget(LEAVES[0])
    assert survey(PLAN, store, seen)[LEAVES[0].name].status == "waiting"
    run_task(store, LEAVES[0], kinds=toy_suite.KINDS)
    read.clear()
    assert survey(PLAN, store, seen)[LEAVES[0].name].status == "done" and read == [LEAVES[0].name]
    path = store.record_path(ROOT)
    path.write_bytes(path.read_bytes()[:-10])
    assert "contents do not match" in survey(PLAN, store, seen)[ROOT.name].damage


def test_a_sweep_looks_at_files_whatever_was_seen(store):
    """A record that is as it was may vouch for a file that is not."""
    seen = plans.Seen(store, "g.s", trusted=False)
    survey(PLAN, store, seen)
    seen.save()
    (store.artifacts(ROOT) / "value.txt").unlink()
    assert survey(PLAN, store, plans.Seen(store, "g.s", trusted=False))[ROOT.name].damage
    assert survey(PLAN, store, plans.Seen(store, "g.s"))[ROOT.name].status == "done"


def test_what_failed_is_seen_with_its_cause(store, monkeypatch):
    monkeypatch.setenv("TOY_NAME", "leaf")
    monkeypatch.setenv("TOY_BEHAVIOUR", "nan")
    run_task(store, LEAVES[1], kinds=toy_suite.KINDS)
    for seen in (plans.Seen(store, "g.s"), plans.Seen(store, "g.s")):
        state = survey(PLAN, store, seen)[LEAVES[1].name]
        assert state.status == "failed" and "non-finite loss" in state.detail and state.record["log"]
        seen.save()


@pytest.fixture
def toy(tmp_path, capsys):
    """Runs the toy's command line; what it printed."""
    grid = tmp_path / "toy.yaml"
    grid.write_text(toy_suite.GRID, encoding="utf-8")

    def toy(*options: str) -> str:
        folders = ["--store", str(tmp_path / "store"), "--results", str(tmp_path / "results")]
        assert sweep.main(["--grid", str(grid), *folders, *options], toy_suite.SUITE) == 0
        return capsys.readouterr().out

    return toy


@pytest.fixture
def planned(monkeypatch):
    """Counts how often the toy's grid is planned."""
    calls = []
    build = toy_suite.SUITE.build
    real = sweep.Sweep.build
    monkeypatch.setattr(
        sweep.Sweep, "build", lambda self, sources: calls.append(build) or real(self, sources)
    )
    return calls


def test_status_shows_the_same_from_the_kept_plan(toy, planned, tmp_path):
    toy("--quiet")
    assert len(planned) == 1
    kept = toy("--status")
    again = toy("--status")
    assert len(planned) == 1
    (tmp_path / "store/plans/toy.digits.jsonl").unlink()
    anew = toy("--status")
    assert len(planned) == 2

    def plain(text: str) -> list[str]:
        return [
            " ".join(word for word in line.split() if word not in ("0", "1", "2", "s"))
            for line in text.splitlines()
        ]

    assert plain(kept) == plain(again) == plain(anew)
    assert len(toy("--status", "--only", "root*").splitlines()) < len(kept.splitlines())


def test_a_sweep_keeps_its_plan_once(toy, monkeypatch):
    written = []
    write = plans._write
    monkeypatch.setattr(
        plans, "_write", lambda store, file, *more: written.append(file) or write(store, file, *more)
    )
    toy("--quiet")  # in a new store
    assert written.count("toy.digits.jsonl") == 1
    written.clear()
    toy("--quiet", "--scale", "paper", "--allow-cpu")  # in one that is there, with work to do
    assert written.count("toy.paper.jsonl") == 1


@pytest.mark.parametrize("what", ["grid", "code", "scale"])
def test_a_plan_is_stale_once_anything_has_changed(what, toy, planned, tmp_path, monkeypatch):
    toy("--quiet")
    if what == "grid":
        path = tmp_path / "toy.yaml"
        path.write_text(toy_suite.GRID.replace("seed: [0, 1]}", "seed: [0, 1, 2]}", 1), encoding="utf-8")
        assert "waiting" not in toy("--status") and len(planned) == 2
    elif what == "code":
        monkeypatch.setattr(plans, "sizes_of_code", lambda *_: "other")
        toy("--status")
        assert len(planned) == 2
    else:
        toy("--status", "--scale", "paper", "--allow-cpu")
        assert len(planned) == 2


def test_data_and_weights_that_changed_make_it_stale(tmp_path):
    (tmp_path / "data/a").mkdir(parents=True)
    before = plans.evidence(tmp_path / "data")
    assert plans.evidence(tmp_path / "data") == before
    (tmp_path / "data/b").mkdir()
    between = plans.evidence(tmp_path / "data")
    (tmp_path / "data/a/one.png").write_bytes(b"x")
    assert before != between != plans.evidence(tmp_path / "data")


def test_a_store_that_cannot_be_written_is_looked_at_all_the_same(toy, tmp_path, monkeypatch):
    toy("--quiet")
    monkeypatch.setattr(plans, "_write", lambda *_: (_ for _ in ()).throw(PermissionError("read-only")))
    (tmp_path / "store/plans/toy.digits.seen.jsonl").unlink()
    assert "done" in toy("--status")
    assert not (tmp_path / "store/plans/toy.digits.seen.jsonl").exists()


def test_status_of_a_finished_table_imports_no_torch(tmp_path):
    """The project's own suite, in a process of its own."""
    root = Path(__file__).parents[4]
    folders = ["--store", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    grid = ["--grid", "experiments/table1.yaml", *folders]
    Store(tmp_path / "runs").prepare()
    environment = {**os.environ, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""}
    for options in (["--dry-run"], ["--status"]):
        code = (
            "import json, sys; from bench import sweep; code = sweep.main(sys.argv[1:]); "
            "print(json.dumps([code, 'torch' in sys.modules, 'timm' in sys.modules]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *grid, *options],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
        )
        code, torch, timm = json.loads(done.stdout.splitlines()[-1])
        assert code == 0, done.stderr
    assert not torch and not timm and "to do" in done.stdout

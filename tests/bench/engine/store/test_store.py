"""The store: what is published, what is noticed when damaged, and who may run what."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import toy_suite

from bench.engine.executors.protocol import BLOCKED, DONE, FAILED, HELD, STOPPED, WAITING
from bench.engine.store import Store, is_full
from bench.engine.task import Task
from bench.engine.worker import run_task
from bench.errors import StoreError

ROOT = Task("root", {"name": "root"}, label="the root")
LEAF = Task("leaf", {"name": "leaf"}, {"root": ROOT}, label="the leaf")


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "store")
    store.prepare()
    return store


def run(store: Store, task: Task, **more):
    return run_task(store, task, kinds=toy_suite.KINDS, **more)


@pytest.fixture
def misbehave(monkeypatch):
    def misbehave(name: str, behaviour: str) -> None:
        monkeypatch.setenv("TOY_NAME", name)
        monkeypatch.setenv("TOY_BEHAVIOUR", behaviour)

    return misbehave


def test_a_task_becomes_a_record_and_artifacts(store):
    assert run(store, ROOT).fresh
    record = store.record(ROOT)
    assert record["status"] == "done"
    assert record["metrics"]["value"] == int((store.artifacts(ROOT) / "value.txt").read_text())
    assert record["settings"] == {"name": "root"} and record["inputs"] == {}
    assert record["artifacts"]["value.txt"]["size"] > 0
    for field in (
        "commit",
        "versions",
        "device",
        "host",
        "seconds",
        "started",
        "finished",
        "log",
        "label",
        "schema",
    ):
        assert field in record
    assert "done in" in (store.root / record["log"]).read_text()
    assert not list((store.root / "tmp").iterdir())
    assert not list((store.root / "claims").iterdir())
    assert not store.checkpoint(ROOT).exists()


def test_nothing_is_run_twice(store):
    assert run(store, ROOT).fresh
    again = run(store, ROOT)
    assert again.status == DONE and not again.fresh


def test_inputs_come_first(store):
    assert run(store, LEAF).status == WAITING
    run(store, ROOT)
    assert run(store, LEAF).status == DONE
    assert store.record(LEAF)["inputs"] == {"root": ROOT.key}


@pytest.mark.parametrize(
    ("behaviour", "cause", "message"),
    [
        ("nan", "non-finite loss", "iteration 3"),
        ("memory", "out of memory", "12 GB"),
        ("missing", "missing data", "imagenet/val"),
        ("explode", "error", "RuntimeError: told to explode"),
    ],
)
def test_a_failure_is_a_record_with_its_cause_and_blocks_what_needs_it(
    store, misbehave, behaviour, cause, message
):
    misbehave("root", behaviour)
    assert run(store, ROOT).status == FAILED
    error = store.record(ROOT)["error"]
    assert error["cause"] == cause and message in error["message"] and "Traceback" in error["traceback"]
    assert "Traceback" in store.log_path(ROOT).read_text()
    assert not store.artifacts(ROOT).exists()
    assert run(store, LEAF).status == BLOCKED
    assert run(store, ROOT).status == FAILED  # not tried again unasked
    misbehave("", "")
    store.forget(ROOT)
    assert run(store, ROOT).status == DONE
    assert run(store, LEAF).status == DONE


def test_a_failure_is_told_alike_when_it_happens_and_later(store, misbehave):
    misbehave("root", "missing")
    now, later = run(store, ROOT), run(store, ROOT)
    assert now.fresh and not later.fresh
    assert later.detail.startswith("missing data: ") and "imagenet/val" in later.detail
    assert now.detail == later.detail


def test_out_of_memory_names_a_batch_size_to_try(store, misbehave):
    misbehave("big", "memory")
    task = Task("root", {"name": "big", "batch_size": 64})
    run(store, task)
    assert "try 32 or less" in store.record(task)["error"]["message"]


def test_metrics_that_are_not_numbers_are_a_failure(store):
    kinds = {"root": toy_suite.ToyKind(1, lambda job: {"top1": float("nan")})}
    assert run_task(store, ROOT, kinds=kinds).status == FAILED
    assert store.record(ROOT)["metrics"] == {}


def test_progress_is_passed_on_and_logged(store):
    heard = []
    run(store, ROOT, progress=lambda *news: heard.append(news))
    assert [(done, total) for done, total, _ in heard] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert "1/4 value=" in store.log_path(ROOT).read_text()


def test_stopped_work_goes_on_from_its_checkpoint(store):
    steps = []
    stopped = run(
        store, ROOT, progress=lambda done, *_: steps.append(done), should_stop=lambda: len(steps) == 2
    )
    assert stopped.status == STOPPED
    assert store.record(ROOT) is None and store.checkpoint(ROOT).exists()
    run(store, ROOT, progress=lambda done, *_: steps.append(done))
    assert steps == [1, 2, 3, 4]
    straight = Store(store.root.parent / "other")
    straight.prepare()
    run(straight, ROOT)
    assert straight.record(ROOT)["metrics"] == store.record(ROOT)["metrics"]


def test_a_damaged_checkpoint_is_thrown_away_once(store):
    from smi.errors import CheckpointError

    calls = []

    def kind(job):
        calls.append(job.checkpoint.exists())
        if job.checkpoint.exists():
            raise CheckpointError("damaged")
        return {}

    store.checkpoint(ROOT).parent.mkdir()
    store.checkpoint(ROOT).write_bytes(b"garbage")
    assert run_task(store, ROOT, kinds={"root": toy_suite.ToyKind(1, kind)}).status == DONE
    assert calls == [True, False]


def test_a_bad_checkpoint_from_outside_is_a_cause_of_its_own(store):
    from smi.errors import CheckpointError

    def kind(job):
        raise CheckpointError("deit.safetensors is truncated")

    run_task(store, ROOT, kinds={"root": toy_suite.ToyKind(1, kind)})
    assert store.record(ROOT)["error"]["cause"] == "bad checkpoint"


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_a_damaged_artifact_is_noticed_and_made_again(store):
    run(store, ROOT)
    before = store.record(ROOT)["metrics"]
    damage(store.artifacts(ROOT) / "value.txt")
    finding = store.find(ROOT)
    assert finding.status == "damaged" and "value.txt" in finding.damage
    assert run(store, ROOT).fresh
    assert store.record(ROOT)["metrics"] == before


def test_a_damaged_record_is_noticed_and_made_again(store):
    run(store, ROOT)
    path = store.record_path(ROOT)
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        data = bytearray(whole)
        data[position] ^= 1 << (position % 8)
        path.write_bytes(bytes(data))
        finding = store.find(ROOT)
        assert finding.status == "damaged" and str(path) in finding.damage
    assert run(store, ROOT).fresh
    assert store.find(ROOT).status == "done"


def test_a_record_in_anothers_place_is_damage(store):
    run(store, ROOT)
    run(store, LEAF)
    shutil.copy(store.record_path(ROOT), store.record_path(LEAF))
    assert store.find(LEAF).status == "damaged"


def test_silent_damage_of_an_input_is_noticed_before_it_is_used(store):
    """Same size, same time: only the checksum can tell, and it is taken before an input is read."""
    run(store, ROOT)
    file = store.artifacts(ROOT) / "value.txt"
    stat = file.stat()
    damage(file)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert store.find(ROOT).status == "done"
    outcome = run(store, LEAF)
    assert outcome.status == WAITING and outcome.damaged == ROOT and "value.txt" in outcome.detail
    assert run(store, ROOT).fresh
    assert run(store, LEAF).status == DONE


def test_a_copied_store_is_as_good(store, tmp_path):
    run(store, ROOT)
    shutil.copytree(store.root, tmp_path / "copy", copy_function=shutil.copy)
    assert not run(Store(tmp_path / "copy"), ROOT).fresh


def test_a_store_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written") as caught:
        Store(tmp_path / "file" / "store").prepare()
    assert "\n" not in str(caught.value)


def test_looking_writes_nothing(tmp_path):
    store = Store(tmp_path / "none")
    assert store.find(ROOT).status == "missing"
    assert store.claims.held() == {}
    assert list(store.records("root")) == []
    assert not store.root.exists()


def test_a_held_task_is_left_alone(store):
    claim = store.claims.take(ROOT.name)
    try:
        outcome = run(store, ROOT)
        assert outcome.status == HELD and str(os.getpid()) in outcome.detail
    finally:
        claim.release()
    assert run(store, ROOT).status == DONE


def test_a_result_whose_claim_was_taken_over_is_not_published(store):
    """A process believed dead wakes up: the one that took its claim counts."""

    def kind(job):
        path = store.root / "claims" / f"{ROOT.name}.json"
        holder = json.loads(path.read_text())
        path.write_text(json.dumps({**holder, "token": "another"}))
        return {"value": 1}

    run_task(store, ROOT, kinds={"root": toy_suite.ToyKind(1, kind)})
    assert store.record(ROOT) is None
    assert (store.root / "claims" / f"{ROOT.name}.json").exists()


def test_work_of_more_than_a_day_is_not_swept_away_while_it_runs(store):
    """Any other sweep that starts on this store tidies it up."""

    def long_one(job):
        day_ago = time.time() - 25 * 3600
        os.utime(job.out, (day_ago, day_ago))
        job.checkpoint.write_text("25 hours of state")
        Store(store.root).prepare()
        assert job.checkpoint.exists()
        (job.out / "file").write_text("made")
        return {}

    kinds = {"root": toy_suite.ToyKind(1, long_one)}
    assert run_task(store, ROOT, kinds=kinds).status == DONE
    assert (store.artifacts(ROOT) / "file").read_text() == "made"


def test_old_work_that_nobody_holds_is_swept_away(store):
    left = store.root / "tmp" / f"{ROOT.name}.{'0' * 32}"
    left.mkdir()
    os.utime(left, (time.time() - 25 * 3600,) * 2)
    store.prepare()
    assert not left.exists()


def test_a_full_disk_within_a_chain_that_closes_on_itself_is_found():
    full = OSError(28, "No space left on device")
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__cause__ = second, first
    assert not is_full(first)
    second.__cause__ = full
    assert is_full(first) and not is_full(None)


def test_files_are_shared_as_the_umask_says(store):
    before = os.umask(0o002)
    try:
        run(store, ROOT)
    finally:
        os.umask(before)
    made = [store.record_path(ROOT), store.artifacts(ROOT) / "value.txt", store.log_path(ROOT)]
    assert [oct(path.stat().st_mode & 0o777) for path in made] == ["0o664"] * 3

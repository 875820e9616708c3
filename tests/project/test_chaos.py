"""The judge of sweeps under faults (tools/chaos) sees a task that ran twice, and one whose record changed or went."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest

from tools.chaos.__main__ import Watch
from tools.chaos.arena import Arena, at_once


def said(*words: tuple[str, int]) -> list[dict]:
    """What processes said of one task, second after second: (what, process)."""
    clock = itertools.count()
    return [{"task": "t", "what": what, "pid": pid, "time": next(clock)} for what, pid in words]


@pytest.mark.parametrize(
    ("words", "times"),
    [
        ([("start", 1), ("end", 1), ("start", 2), ("end", 2)], 0),  # the first died before it published
        ([("start", 1), ("start", 2), ("end", 2)], 0),  # the first was killed
        ([("start", 1), ("start", 2), ("end", 1), ("end", 2)], 1),
        ([("start", 1), ("start", 2), ("end", 2), ("saved", 1)], 1),
    ],
)
def test_two_processes_on_one_task_are_seen(words, times):
    assert at_once(said(*words)) == times


def test_records_that_change_or_go_are_seen(tmp_path: Path):
    arena = Arena(tmp_path / "arena", "local", dict(os.environ), mount=False)
    folder = arena.store / "records" / "00"
    folder.mkdir(parents=True)
    for name in ("kept", "changed", "gone", "failed"):
        status = "failed" if name == "failed" else "done"
        (folder / f"{name}.json").write_text(json.dumps({"status": status}))
    watch = Watch(arena)
    assert watch.look() == 3
    (folder / "changed.json").write_text(json.dumps({"status": "done", "again": 1}))
    (folder / "gone.json").unlink()
    (folder / "failed.json").write_text(json.dumps({"status": "done"}))
    watch.look()
    assert watch.changed == {"changed", "gone"}

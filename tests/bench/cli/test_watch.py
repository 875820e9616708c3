"""`--status --watch`, and the pace of a sweep."""

from __future__ import annotations

import io

import pytest

from bench.cli import watch
from bench.cli.options import parse
from bench.cli.pace import found, pace
from bench.engine.executors.protocol import DONE, FAILED, RUNNING, WAITING
from bench.engine.plan import CellTasks, make_plan
from bench.engine.states import Estimates, State
from bench.engine.store import Store
from bench.engine.task import Task
from bench.errors import BenchError
from bench.grid import Expect

TASKS = [Task("images", {"n": n}, label=f"invert [bold]{n}") for n in range(4)]
PLAN = make_plan(CellTasks({}, {"images": task}) for task in TASKS)
NOON = 1767268800.0  # 2026-01-01T12:00:00+00:00


def record(task: Task, began: str, ended: str, **metrics) -> dict:
    frame = {"started": f"2026-01-01T{began}+00:00", "finished": f"2026-01-01T{ended}+00:00"}
    return {**frame, "status": "done", "label": task.label, "key": task.key, "metrics": metrics} | {"kind": task.kind, 
        "settings": task.settings, "seconds": 60.0, "device_type": "cpu"
    }  # fmt: skip


STATES = {
    TASKS[0].name: State(DONE, record(TASKS[0], "11:50:00", "11:51:00", loss=0.5, seconds=58.25)),
    TASKS[1].name: State(DONE, record(TASKS[1], "11:51:00", "11:55:00", loss=0.25, seconds=60.0)),
    TASKS[2].name: State(RUNNING, detail="7/10 on node3, process 12"),
    TASKS[3].name: State(WAITING),
}


def estimates(tmp_path, states=STATES) -> Estimates:
    return Estimates(PLAN, states, Store(tmp_path), Expect(), False)


def test_a_row_says_what_is_done_how_fast_how_long_and_what_came_out_last(tmp_path):
    (row,) = watch.rows(PLAN, STATES, estimates(tmp_path), 1, NOON)
    assert dict(zip(watch.HEAD, row, strict=True)) == {
        "kind": "images", "done": "2", "running": "1", "failed": "0", "blocked": "0", "to do": "1", "pace": "12/h",
        "time left": "about 2 min",
    }  # fmt: skip
    assert watch.now(PLAN, STATES) == [
        "running invert [bold]2: 7/10 on node3, process 12",
        "last invert [bold]1: loss 0.25, seconds 60",
    ]


def test_a_pace_is_of_the_last_hour_and_needs_an_end_within_it():
    assert pace([], 0.0) == pace([(0.0, 10.0)], 5000.0) == "-"
    assert pace([(0.0, 10.0), (10.0, 20.0)], 60.0) == "2/min"
    assert pace([(0.0, 30.0)] * 4, 30.0) == "8/min"  # four workers at once
    assert pace([(0.0, 1800.0)], 3600.0) == "1/h"


def test_the_telling_figures_come_first_and_truth_is_no_figure():
    made = record(TASKS[0], "11:00:00", "11:01:00", patches=64, seconds=2.0, top1=97.5, sure=True)
    assert found(made) == "top1 97.5, seconds 2"
    assert found(record(TASKS[0], "11:00:00", "11:01:00", own=3.0, sure=True)) == "own 3"
    assert found(None) == found({**made, "status": "failed"}) == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_it_looks_until_all_is_settled_and_says_what_changed(tmp_path, stream, monkeypatch):
    settled = {name: State(DONE, record(TASKS[0], "11:00:00", "11:01:00", loss=0.125)) for name in STATES}
    settled[TASKS[3].name] = State(FAILED, {**record(TASKS[3], "11:00:00", "11:01:00"), "status": "failed"})
    looks = iter([STATES, STATES, settled])
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def look():
        states = next(looks)
        return states, estimates(tmp_path, states)

    out = stream()
    watch.watch(PLAN, look, 1, out)
    shown = out.getvalue()
    assert "running invert [bold]2: 7/10 on node3, process 12" in shown
    assert "4 of 4 tasks settled" in shown and next(looks, None) is None
    if stream is io.StringIO:
        assert shown.count("2 of 4 tasks settled") == 1, "what has not changed is not said again"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--watch"], "--status"),
        (["--tensorboard", "logs", "--status"], "--status"),
        (["--tensorboard", "logs", "--dry-run"], "--dry-run"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(options, said):
    with pytest.raises(BenchError, match=said):
        parse(["--grid", "toy.yaml", *options])

"""What people see of a running sweep."""

from __future__ import annotations

import io

import pytest

from bench.cli.progress import Board, LiveView, PlainView, make_view
from bench.engine.executors.protocol import BLOCKED, DONE, FAILED, HELD, RUNNING, WAITING, Update
from bench.engine.plan import CellTasks, make_plan
from bench.engine.states import Estimates, State
from bench.engine.store import Store
from bench.engine.task import Task
from bench.grid import Expect
from bench.text import duration, estimate

TASKS = [Task("images", {"n": n}, label=f"images [bold]{n}") for n in range(3)]
PLAN = make_plan(CellTasks({}, {"images": task}) for task in TASKS)


@pytest.fixture
def board(tmp_path):
    def board(view, seconds: float | None = 60.0) -> Board:
        states = {task.name: State(WAITING) for task in TASKS}
        expect = Expect(cpu={"images": seconds}) if seconds else Expect()
        return Board(PLAN, states, Estimates(PLAN, states, Store(tmp_path), expect, False), 1, view)

    return board


def test_plain_lines_tell_each_end_once_with_the_time_left(board):
    stream = io.StringIO()
    plain = board(PlainView(stream))
    plain.update(Update(TASKS[0], RUNNING, "", 1, 10, {"loss": 0.5}))
    plain.update(Update(TASKS[0], DONE))
    for _ in range(5):
        plain.update(Update(TASKS[1], RUNNING))
        plain.update(Update(TASKS[1], HELD, "node7, process 12"))
    plain.update(Update(TASKS[1], FAILED, "out of memory: 12 GB"))
    plain.update(Update(TASKS[2], BLOCKED, "images 1"))
    lines = stream.getvalue().splitlines()
    assert [line.split("] ", 1)[1] for line in lines] == [
        "done images [bold]0",
        "run by another process: images [bold]1: node7, process 12",
        "failed images [bold]1: out of memory: 12 GB",
        "blocked images [bold]2: images 1",
    ]
    assert lines[0].startswith("[1/3") and lines[-1].startswith("[3/3]")
    assert plain.made == 3


def test_the_time_left_is_unknown_until_something_is_known(board):
    assert board(PlainView(io.StringIO()), seconds=None).seconds_left() is None
    assert board(PlainView(io.StringIO()), seconds=60.0).seconds_left() == pytest.approx(180.0)


def test_a_running_task_is_judged_by_its_own_pace(board, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    plain = board(PlainView(io.StringIO()), seconds=60.0)

    def news(task: Task, done: int, after: float) -> float:
        clock[0] += after
        plain.update(Update(task, RUNNING, "", done, 1000))
        clock[0] += 5.0  # an estimate is kept for a while
        return plain.seconds_left()

    plain.update(Update(TASKS[0], RUNNING))  # as executors do: it runs, and what it is at is not known yet
    assert news(TASKS[0], 400, 0.0) == pytest.approx(60 - 5 + 120)  # resumed at step 400: no pace yet
    assert news(TASKS[0], 410, 5.0) == pytest.approx(60 - 15 + 120)  # too little to judge by
    assert news(TASKS[0], 500, 5.0) == pytest.approx(500 * 20 / 100 - 5 + 120)
    assert news(TASKS[0], 999, 2000.0) == pytest.approx(0.0 + 120)
    assert news(TASKS[1], 0, 0.0) == pytest.approx(60 - 5 + 60)


def test_another_grids_records_are_asked_last(tmp_path):
    """A store may hold teachers of a minute and of an hour; the grid at hand knows which ones are its own."""

    class Records(Store):
        def records(self, kind):
            return iter([record])

    record = {"status": "done", "device_type": "cpu", "settings": {"n": 77}, "seconds": 7.0}
    states = {task.name: State(WAITING) for task in TASKS}
    for expected, unlike in (({"images": 60.0}, 60.0), ({}, 7.0)):
        estimates = Estimates(PLAN, states, Records(tmp_path), Expect(cpu=expected), False)
        assert estimates.seconds(TASKS[0]) == unlike
        assert estimates.seconds(Task("images", {"n": 77})) == 7.0  # the same task from another grid
        estimates.learn("images", TASKS[1].settings, 20.0)
        assert estimates.seconds(TASKS[0]) == 20.0


def test_the_live_table_shows_labels_as_they_are(board):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    view = make_view(quiet=False, stream=stream)
    assert isinstance(view, LiveView)
    live = board(view)
    view.open(live)
    live.update(Update(TASKS[0], RUNNING, "", 3, 10, {"loss": 0.25}))
    live.update(Update(TASKS[1], FAILED, "error: [red]x"))
    view.close()
    shown = stream.getvalue()
    assert "images [bold]0 3/10 loss 0.25" in shown
    assert "failed images [bold]1: error: [red]x" in shown


def test_the_live_table_has_the_pace_and_what_the_last_task_found(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    clock = [0.0]
    monkeypatch.setattr("bench.cli.progress.time.monotonic", lambda: clock[0])
    states = {task.name: State(WAITING) for task in TASKS}
    estimates = Estimates(PLAN, states, Store(tmp_path), Expect(), False)
    stream = Terminal()
    view = make_view(quiet=False, stream=stream)
    record = {"status": "done", "label": "images [bold]0", "metrics": {"loss": 0.125, "patches": 64}}
    live = Board(PLAN, states, estimates, 1, view, lambda task: record)
    view.open(live)
    live.update(Update(TASKS[0], RUNNING))
    clock[0] = 30.0
    live.update(Update(TASKS[0], DONE))
    view.close()
    shown = stream.getvalue()
    assert "2/min" in shown and "last images [bold]0: loss 0.125" in shown and "1 min" in shown


def test_wording():
    assert [duration(seconds) for seconds in (0.4, 59, 200, 720, 7500, 90000, 400000)] == [
        "0 s", "59 s", "3 min 20 s", "12 min", "2 h 5 min", "25 h", "4 days 15 h"
    ]  # fmt: skip
    assert estimate(90, 0) == "about 1 min 30 s"
    assert estimate(90, 1) == "about 1 min 30 s and 1 task of unknown length"
    assert estimate(0, 2) == "2 tasks of unknown length"

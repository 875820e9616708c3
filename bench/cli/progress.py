"""What a sweep shows while it runs: a live table by kind of task on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TextIO

from bench.cli.pace import pace
from bench.cli.watch import STATES, finished, grid
from bench.engine.executors.protocol import (
    BLOCKED,
    DONE,
    FAILED,
    HELD,
    RUNNING,
    SETTLED,
    STOPPED,
    WAITING,
    Update,
)
from bench.engine.plan import Plan
from bench.engine.states import Estimates, State, shared
from bench.engine.store import Record
from bench.engine.task import Task
from bench.text import duration, plural

PLAIN_SECONDS = 15.0  # between two plain lines about one running task
ESTIMATE_SECONDS = 2.0  # for which an estimate of the time left is kept: it looks at every task
SHOWN_RUNNING = 8  # running tasks shown by name in the live table
PACE_SHARE = 0.02  # of its steps that a running task must have done before its own pace says when it ends


@dataclass
class Running:
    """A running task: its last news, when they came, when it began, and from which step its pace is taken and since
    when (monotonic seconds). At first it says no more than that it runs; the first step that it tells of may be far on,
    where it continues from a saved state."""

    news: Update
    at: float
    began: float
    first: int
    since: float

    def hear(self, news: Update, now: float) -> None:
        if not self.news.total:
            self.first, self.since = news.done, now
        self.news, self.at = news, now

    def seconds_left(self, expected: float | None) -> float | None:
        """By its own pace; by the time expected of the whole while that is not known."""
        made, gone = self.news.done - self.first, time.monotonic() - self.at
        if made > PACE_SHARE * self.news.total:
            left = (self.at - self.since) / made * (self.news.total - self.news.done)
        elif expected is None:
            return None
        else:
            left = expected - (self.at - self.began)
        return max(0.0, left - gone)


class Board:
    """Keeps count of a sweep's tasks from the executor's updates; a view shows it. record: a finished task's."""

    def __init__(
        self,
        plan: Plan,
        states: Mapping[str, State],
        estimates: Estimates,
        workers: int,
        view: View,
        record: Callable[[Task], Record | None] = lambda task: None,
    ) -> None:
        self.plan, self.estimates, self.workers, self._view = plan, estimates, workers, view
        self.status = {
            name: WAITING if state.status == RUNNING else state.status for name, state in states.items()
        }
        self._held: set[str] = set()  # tasks that another process runs; looked at again and again, told once
        self.running: dict[str, Running] = {}
        self.details: dict[str, str] = {name: state.detail for name, state in states.items() if state.detail}
        self._record = record
        self.spans: dict[str, list[tuple[float, float]]] = defaultdict(
            list
        )  # kind -> when its tasks ran here
        self.last: dict[str, str] = {}  # kind -> its last finished task and what it found
        self.made = 0  # tasks that this sweep has brought to an end
        self._left: tuple[float, float | None] = (float("-inf"), None)  # when the estimate was made, and it

    def update(self, news: Update) -> None:
        """Take in one update; the view decides whether it is worth showing."""
        name, before = news.task.name, self.status.get(news.task.name)
        now = time.monotonic()
        if news.status == RUNNING and name in self.running:
            self.running[name].hear(news, now)
        elif news.status == RUNNING:
            self.running[name] = Running(news, now, now, news.done, now)
        elif name in self.running:
            began = self.running.pop(name).began
            if news.status == DONE and name not in self._held:  # else: somebody else's seconds
                self.estimates.learn(news.task.kind, news.task.settings, now - began)
                self.spans[news.task.kind].append((began, now))
                record = self._record(news.task)
                if record is not None:
                    self.last[news.task.kind] = finished(record)
        if news.status in SETTLED and before not in SETTLED:
            self.made += 1
        self.status[name] = WAITING if news.status in (HELD, STOPPED) else news.status
        self.details[name] = news.detail
        if news.status == HELD:
            worth_telling = name not in self._held
            self._held.add(name)
        else:
            worth_telling = news.status != before or news.status == RUNNING
        if worth_telling:
            self._view.show(self, news)

    @property
    def settled(self) -> int:
        return sum(status in SETTLED for status in self.status.values())

    def left(self) -> list[Task]:
        return [task for task in self.plan.tasks if self.status[task.name] not in SETTLED]

    def seconds_left(self) -> float | None:
        """Estimated wall-clock seconds to the end; None while too little is known."""
        if time.monotonic() - self._left[0] >= ESTIMATE_SECONDS:
            self._left = (time.monotonic(), self._estimate_left())
        return self._left[1]

    def _estimate_left(self, kind: str | None = None) -> float | None:
        each = [self._seconds_left_of(task) for task in self.left() if kind in (None, task.kind)]
        known = [seconds for seconds in each if seconds is not None]
        return shared(known, self.workers) if len(known) == len(each) else None

    def left_of(self, kind: str) -> str:
        """Time to the end of a kind's tasks, were all workers at them, in words."""
        if all(task.kind != kind for task in self.left()):
            return "-"
        seconds = self._estimate_left(kind)
        return "?" if seconds is None else duration(seconds)

    def _seconds_left_of(self, task: Task) -> float | None:
        expected, running = self.estimates.seconds(task), self.running.get(task.name)
        return expected if running is None else running.seconds_left(expected)


class View(Protocol):
    """Shows a board; `open` and `close` frame the sweep."""

    def open(self, board: Board) -> None: ...
    def show(self, board: Board, news: Update) -> None: ...
    def close(self) -> None: ...


def make_view(quiet: bool, stream: TextIO | None = None) -> View:
    """Live on a terminal, plain lines elsewhere, nothing if `quiet`."""
    stream = stream or sys.stdout
    if quiet:
        return QuietView()
    return LiveView(stream) if stream.isatty() else PlainView(stream)


class QuietView:
    """Shows nothing."""

    def open(self, board: Board) -> None:
        pass

    def show(self, board: Board, news: Update) -> None:
        pass

    def close(self) -> None:
        pass


class PlainView:
    """One line when a task is settled, and now and then about those that run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._said: dict[str, float] = {}

    def open(self, board: Board) -> None:
        pass

    def show(self, board: Board, news: Update) -> None:
        now = time.monotonic()
        if news.status == RUNNING:
            if now - self._said.setdefault(news.task.name, now) < PLAIN_SECONDS:
                return
            self._said[news.task.name] = now
            text = f"running {_label(news.task)} {news.done}/{news.total} {_figures(news)}".rstrip()
        elif news.status in (DONE, STOPPED):
            text = f"{news.status} {_label(news.task)}"
        elif news.status in (FAILED, BLOCKED, HELD):
            text = f"{_status_words(news)} {_label(news.task)}: {news.detail}"
        else:
            return
        left = board.seconds_left()
        tail = f", {duration(left)} left" if left and board.settled < len(board.status) else ""
        print(f"[{board.settled}/{len(board.status)}{tail}] {text}", file=self._stream, flush=True)

    def close(self) -> None:
        pass


class LiveView:
    """A table that redraws itself in place."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream)
        self._board: Board | None = None
        self._live = Live(
            console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True
        )

    def open(self, board: Board) -> None:
        self._board = board
        self._live.start()

    def show(self, board: Board, news: Update) -> None:
        if news.status == FAILED:
            self._console.print(
                f"failed {_label(news.task)}: {news.detail}", markup=False, highlight=False, style="red"
            )

    def close(self) -> None:
        self._live.stop()

    def _render(self):
        from rich.console import Group
        from rich.text import Text

        if self._board is None:
            return ""
        board = self._board
        left = board.seconds_left()
        title = f"{board.settled} of {plural(len(board.status), 'task')} settled"
        table = grid(
            title + (f", {duration(left)} left" if left is not None else ", time left not known yet")
        )
        now = time.monotonic()
        for kind in board.plan.kinds:
            status = [board.status[task.name] for task in board.plan.tasks if task.kind == kind]
            counted = (str(status.count(name)) for name in STATES)
            table.add_row(kind, *counted, pace(board.spans[kind], now), board.left_of(kind))
        running = [each.news for each in board.running.values()][:SHOWN_RUNNING]
        lines = [f"{_label(news.task)} {_share(news)}".rstrip() for news in running]
        return Group(table, *(Text(line) for line in (*lines, *board.last.values())))


def _label(task: Task) -> str:
    return task.label or task.name


def _share(news: Update) -> str:
    return f"{news.done}/{news.total} {_figures(news)}".rstrip() if news.total else ""


def _figures(news: Update) -> str:
    return " ".join(f"{key} {value:.4g}" for key, value in list(news.figures.items())[:3])


def _status_words(news: Update) -> str:
    return "run by another process:" if news.status == HELD else news.status

"""`--tensorboard DIR`: inversions and trainings as TensorBoard shows them, a run for each task.

Written by the sweep's own process from what tasks tell of themselves, so it works with every executor and changes no
task: while one runs, the figures that it reports (running/...); when it is done, whole courses from its record
(course/...) and its figures (result/...). `tensorboard --logdir DIR` shows them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.cli.pace import scalars
from bench.engine.executors.protocol import DONE, RUNNING, SETTLED, STOPPED, Update
from bench.engine.store import Record
from bench.engine.task import Task
from bench.errors import BenchError, StoreError

SCORING = frozenset({"evaluate", "quantize", "cost", "deploy"})  # kinds that neither invert nor train
STEPS = ("iteration", "step")  # what courses are counted in
LONGEST = 80  # characters of a run's name


class TensorBoard:
    """Writes events of a sweep's tasks below a folder. record: a task's, once it is done.

    Raises BenchError where the package is missing, StoreError where the folder cannot be written.
    """

    def __init__(self, folder: Path, record: Callable[[Task], Record | None]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise BenchError(
                "--tensorboard needs the package tensorboard: pip install 'sparse-model-inversion[tensorboard]'"
            ) from None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"--tensorboard: {folder} cannot be made: {error.strerror or error}") from error
        self._open, self._folder, self._record = SummaryWriter, folder, record
        self._writers: dict[str, Any] = {}

    def update(self, news: Update) -> None:
        """Take in one update of the executor."""
        task = news.task
        if task.kind in SCORING:
            return
        if news.status == RUNNING and news.figures:
            for name, value in news.figures.items():
                self._writer(task).add_scalar(f"running/{name}", value, news.done)
        elif news.status == DONE:
            record = self._record(task)
            if record is not None:
                self._finish(task, record)
        if news.status in SETTLED or news.status == STOPPED:
            self._close(task.name)

    def close(self) -> None:
        """Write out what is left."""
        for name in list(self._writers):
            self._close(name)

    def _writer(self, task: Task) -> Any:
        if task.name not in self._writers:
            self._writers[task.name] = self._open(str(self._folder / run_name(task)))
            settings = json.dumps(task.settings, indent=1, ensure_ascii=False)
            self._writers[task.name].add_text(
                "settings", "\n".join(f"    {line}" for line in settings.splitlines())
            )
        return self._writers[task.name]

    def _finish(self, task: Task, record: Record) -> None:
        writer = self._writer(task)
        for name, step, value in courses(record["metrics"]):
            writer.add_scalar(f"course/{name}", value, step)
        for name, value in scalars({"seconds of the task": record["seconds"], **record["metrics"]}):
            writer.add_scalar(f"result/{name}", value, 0)

    def _close(self, name: str) -> None:
        writer = self._writers.pop(name, None)
        if writer is not None:
            writer.close()


def run_name(task: Task) -> str:
    """Its folder: what people call it, and enough of its key to keep it apart from others."""
    label = re.sub(r"[^\w.@+-]+", "-", task.label or task.kind).strip("-.")[:LONGEST]
    return f"{label}-{task.key[:6]}"


def courses(metrics: Mapping[str, Any]) -> Iterator[tuple[str, int, float]]:
    """(name, step, value) of everything in a record's metrics that goes along with iterations or steps.

    Known forms: {"iteration": [...], name: [...]}, as inversions keep, and [{"step": n, name: value}], as transfers do.
    """
    for value in metrics.values():
        if isinstance(value, Mapping):
            unit = next((unit for unit in STEPS if isinstance(value.get(unit), list)), None)
            rows = [] if unit is None else _rows(value, len(value[unit]))
        else:
            rows = value if isinstance(value, list) else []
        for row in rows:
            unit = next((unit for unit in STEPS if isinstance(row, Mapping) and unit in row), None)
            if unit is not None:
                for name, number in scalars({name: one for name, one in row.items() if name != unit}):
                    yield name, int(row[unit]), number


def _rows(columns: Mapping[str, Any], length: int) -> list[dict[str, Any]]:
    """A mapping of lists as a list of mappings; lists of another length are left out."""
    whole = {name: one for name, one in columns.items() if isinstance(one, list) and len(one) == length}
    return [{name: one[place] for name, one in whole.items()} for place in range(length)]

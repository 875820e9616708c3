"""A task: one unit of work, named by everything that can change its result.

`Task` is what a plan is made of, `Job` is what a task is given when it runs. Neither knows how or where
tasks are run (bench/executors) nor what any kind of task does (bench/tasks).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

KEY_LENGTH = 16  # hexadecimal digits of the sha256: 64 bits, ample for millions of tasks


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value that keys are made from: sorted keys, no blanks, no NaN."""
    return _CANONICAL.encode(value)


@dataclass(frozen=True)
class Task:
    """One unit of work. Equal keys mean equal results.

    kind: name of an entry of `bench.tasks.KINDS`.
    settings: JSON values; everything that changes the result and nothing else (no paths, no resources).
    inputs: name -> the task whose artifacts this one reads.
    version: the kind's version; raised when the kind's code changes what it computes.
    label: for people only, e.g. "invert digits_vit deepinversion_sparse seed 0"; not part of the key.
    expected: seconds that it takes, where whoever plans it knows better than a grid's `expect`; not part of the key.
    """

    kind: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Task] = field(default_factory=dict)
    version: int = 1
    label: str = ""
    expected: float | None = None

    @cached_property
    def key(self) -> str:
        identity = {
            "kind": self.kind,
            "version": self.version,
            "settings": dict(self.settings),
            "inputs": {name: task.key for name, task in self.inputs.items()},
        }
        return hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:KEY_LENGTH]

    @cached_property
    def name(self) -> str:
        """`<kind>-<key>`: file name of the record and folder name of the artifacts."""
        return f"{self.kind}-{self.key}"

    @cached_property
    def likeness(self) -> str:
        """The same for tasks that differ in their seed alone, and so take as long."""
        return likeness(self.kind, self.settings)

    @classmethod
    def recalled(
        cls,
        kind: str,
        key: str,
        label: str,
        likeness: str,
        expected: float | None,
        inputs: Mapping[str, Task],
    ) -> Task:
        """A task known by its key alone, to be looked at and not to be run: its settings are not there."""
        task = cls(kind, {}, inputs, label=label, expected=expected)
        task.__dict__.update(key=key, name=f"{kind}-{key}", likeness=likeness)
        return task

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and self.name == other.name


def likeness(kind: str, settings: Mapping[str, Any]) -> str:
    """See `Task.likeness`."""
    text = kind + canonical_json({key: value for key, value in settings.items() if key != "seed"})
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


@dataclass(frozen=True)
class Sources:
    """Where data and weights lie on this machine. Never part of a key: contents are fingerprinted instead."""

    data: Mapping[str, Path] = field(default_factory=dict)  # data set name -> folder
    checkpoints: Path | None = None  # folder of <timm model name>.safetensors / .pth
    download: bool = False  # may data sets be fetched
    include: tuple[Path, ...] = ()  # folders of the user's own modules (bench.engine.include)
    files: tuple[Path, ...] = ()  # pictures that methods of the grid name
    decode_cache: Path | None = None  # folder of decoded pictures (bench.datasets.decode_cache)
    retrain: bool = False  # train models whose weights come with the project, too
    # How inversions run (bench.tasks.engines): the scale's choice, of no effect beyond rounding.
    engine: str = "auto"
    # Where tasks are only looked at: what is missing and got a placeholder, by name, and the line that says so.
    placeholders: dict[str, str] | None = None


@dataclass
class Job:
    """What a running task is given. `bench.tasks.KINDS[kind].run(job)` returns the metrics (JSON values)."""

    task: Task
    inputs: Mapping[str, Path]  # artifact folder of each input, checksums verified
    out: Path  # an empty folder: what is written here becomes the task's artifacts, whole or not at all
    checkpoint: Path  # a file path for resumable state; survives kills, removed once the task is done
    device: str  # "cpu", "cuda:0", ...
    sources: Sources
    progress: Callable[[int, int, Mapping[str, float]], None]  # (done, total, figures to show)
    should_stop: Callable[[], bool]  # true when told to stop: save the checkpoint and raise smi.Interrupted

"""Plans of sweeps, kept in their store, so that a look at a hundred thousand tasks neither plans anew nor reads every
record again.

    plans/<grid>.<scale>.jsonl        the tasks of the last plan, inputs first, below what it was made from
    plans/<grid>.<scale>.seen.jsonl   what looks have found in the records of finished tasks, by size and time of change

Both are conveniences: one that is missing, damaged, of another version or made from something else counts as not there.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.engine import atomic
from bench.engine.plan import Plan
from bench.engine.store import Record, Store, layout
from bench.engine.task import Task, canonical_json

FOLDER = "plans"
FIELDS = ("status", "seconds", "finished", "device_type", "error", "log")  # of a record, that a look shows
Stamp = tuple[int, int]  # size and time of change of a record's file


def evidence(*paths: Path) -> list[list[Any]]:
    """[path, size, time of change] of files, of those directly in a folder, and of its sub-folders: what says without
    reading them that they are as they were."""
    found: list[list[Any]] = []
    for path in paths:
        with suppress(OSError):
            entries = [path, *path.iterdir()] if path.is_dir() else [path]
            for entry in sorted(entries):
                stat = entry.stat()
                found.append([str(entry), stat.st_size, stat.st_mtime_ns])
    return found


@contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's collector of circles: among hundreds of thousands of new values, none in a circle, its rounds
    take longer than the work."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def keep(store: Store, name: str, made_from: Any, plan: Plan) -> None:
    """Write down a plan. made_from: JSON values; a plan is recalled only for equal ones. OSError where it cannot be."""
    places = {task.name: place for place, task in enumerate(plan.tasks)}
    lines = [
        [
            task.kind,
            task.key,
            task.label,
            task.likeness,
            task.expected,
            [places[needed.name] for needed in task.inputs.values()],
        ]
        for task in plan.tasks
    ]
    _write(store, f"{name}.jsonl", made_from, lines)


def recall(store: Store, name: str, made_from: Any) -> Plan | None:
    """The plan kept under a name, if it was made from the same; its tasks know no settings, and are not to be run."""
    lines = _read(store, f"{name}.jsonl", made_from)
    if lines is None:
        return None
    tasks: list[Task] = []
    with uncollected():
        for kind, key, label, likeness, expected, inputs in lines:
            needed = {str(place): tasks[place] for place in inputs}
            tasks.append(Task.recalled(kind, key, label, likeness, expected, needed))
    return Plan(tuple(tasks))


class Seen:
    """What earlier looks have found in records: those whose files are as they were then need not be read again.

    The files that such a record vouches for are not looked at; a sweep does that before it relies on them, and so takes
    note of records without trusting what was seen before (trusted=False).
    """

    def __init__(self, store: Store, name: str, trusted: bool = True) -> None:
        self.store, self._file, self._trusted = store, f"{name}.seen.jsonl", trusted
        self._known: dict[str, tuple[Stamp, list[Any]]] = {}
        with uncollected():
            for task, size, changed, values in _read(store, self._file, None) or []:
                self._known[task] = (size, changed), values
        self._stamps: dict[str, Stamp] = {}
        self._news = 0

    def look(self) -> None:
        """Take the sizes and times of all records, one listing for each of the store's folders."""
        self._stamps = {
            name.removesuffix(".json"): stamp for name, stamp in layout.stamps(self.store.root, "records")
        }

    def record(self, task: Task) -> Record | None:
        """What is known of a task whose record is unchanged."""
        stamp, values = self._known.get(task.name, (None, []))
        if stamp is None or stamp != self._stamps.get(task.name) or not self._trusted:
            return None
        record = dict(zip(FIELDS, values, strict=True))
        record["likeness"] = task.likeness
        return record

    def is_recorded(self, task: Task) -> bool:
        return task.name in self._stamps

    def learn(self, task: Task, record: Record) -> None:
        """Take note of a record that was read and found intact."""
        stamp = self._stamps.get(task.name)
        if stamp is not None and self._known.get(task.name, (None,))[0] != stamp:
            self._known[task.name] = stamp, [record.get(field) for field in FIELDS]
            self._news += 1

    def save(self) -> None:
        """Keep what is new for the next look; a store that cannot be written is only looked at."""
        if self._news:
            lines = [[name, *stamp, values] for name, (stamp, values) in sorted(self._known.items())]
            with suppress(OSError):
                _write(self.store, self._file, None, lines)
            self._news = 0


def _write(store: Store, file: str, made_from: Any, lines: Iterable[Any]) -> None:
    body = "".join(canonical_json(line) + "\n" for line in lines).encode()
    head = {"made_from": made_from, "sha256": hashlib.sha256(body).hexdigest()}
    (store.root / FOLDER).mkdir(exist_ok=True)
    data = canonical_json(head).encode() + b"\n" + body
    atomic.write_bytes(store.root / FOLDER / file, data, store.root / "tmp", lasting=False)


def _read(store: Store, file: str, made_from: Any) -> list[Any] | None:
    try:
        head, _, body = (store.root / FOLDER / file).read_bytes().partition(b"\n")
        told: Mapping[str, Any] = json.loads(head)
        if told != {"made_from": made_from, "sha256": hashlib.sha256(body).hexdigest()}:
            return None
        with uncollected():
            values: list[Any] = json.loads(b"[" + b",".join(body.splitlines()) + b"]")
    except (OSError, ValueError, TypeError):
        return None
    return values


def sizes_of_code(*packages: Path) -> str:
    """One digest of names, sizes and times of change of every file below some folders that is no cache."""
    digest = hashlib.sha256()
    for package in packages:
        for folder, folders, files in os.walk(package):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for name in sorted(files):
                stat = os.stat(os.path.join(folder, name))
                digest.update(f"{folder}/{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()

"""The store: records, artifacts, checkpoints, claims and logs of tasks, in one folder outside git.

    store.json                    which layout the store has (bench/engine/store/layout.py)
    records/<ke>/<kind>-<key>.json    one per task that is done or has failed, sealed by a digest
    artifacts/<ke>/<kind>-<key>/  the files that a done task made, checksums in its record
    checkpoints/<kind>-<key>/     resumable state of unfinished tasks
    claims/                       who is running what (bench/engine/store/claims.py)
    logs/<kind>-<key>.log         what a task said
    tmp/                          work in progress; nothing in it counts

Everything appears whole or not at all. A record is written last, so a task is done exactly when its record is there
and everything it vouches for is intact.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.engine import atomic
from bench.engine.store import layout
from bench.engine.store.attempts import Attempts
from bench.engine.store.claims import Claim, Claims
from bench.engine.task import Task, canonical_json
from bench.errors import StoreError, causes
from bench.text import one_line

SCHEMA = 1  # of a record; raised when its fields change meaning
FOLDERS = ("records", "artifacts", "checkpoints", "claims", "logs", "tmp")
ABANDONED = 24 * 3600.0  # seconds after which something in tmp/ belongs to nobody
Record = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """What the store knows of a task. status: "done", "failed", "damaged" or "missing"."""

    status: str
    record: Record | None = None
    damage: str = ""  # what is damaged, for people


class Store:
    """One store folder. Reading never writes; `check` must be called before it is read, `prepare` before anything is
    run."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.claims = Claims(self.root / "claims", self.root / "tmp")

    def check(self) -> None:
        """Refuse a store of another version. Raises StoreError, one line."""
        layout.check(self.root)

    @property
    def exists(self) -> bool:
        """Whether anything was ever run with it."""
        return (self.root / "records").is_dir()

    def need(self) -> None:
        """Refuse a folder that is no store. Raises StoreError, one line."""
        if not self.exists:
            raise StoreError(f"{self.root} is no store: it has no folder records/")

    def prepare(self) -> None:
        """Make the folders and prove that they can be written. Raises StoreError, one line."""
        with self.errors():
            layout.check(self.root)
            for folder in FOLDERS:
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            probe_writable(self.root / "tmp")
            layout.mark(self.root)
            self.claims.bury()
        self._sweep_out()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn an OSError of the store into a StoreError: one line, what to do."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"the store {self.root} cannot be written: {one_line(error.strerror or str(error))}; nothing that was "
                f"finished is lost: mend that, or give another folder with --store, and run the command again"
            ) from error

    # ---- what is there

    def find(self, task: Task, thorough: bool = False) -> Finding:
        """The state of a task, from its record and the files that it vouches for.

        A file whose size and time of change are as recorded is taken as intact unless `thorough`; otherwise its
        sha256 decides. The task's own claim does not matter here.
        """
        return self.find_named(task.name, thorough)

    def find_named(self, name: str, thorough: bool = False) -> Finding:
        """`find` by a task's name."""
        path = self._record_path(name)
        try:
            record = _unseal(path.read_bytes())
        except FileNotFoundError:
            return Finding("missing")
        except OSError as error:
            return Finding("damaged", damage=f"record {path}: {one_line(str(error))}")
        if record is None or f"{record['kind']}-{record['key']}" != name:
            return Finding("damaged", damage=f"record {path}: contents do not match its digest")
        if record["status"] != "done":
            return Finding("failed", record)
        for part, expected in record["artifacts"].items():
            file = self.artifacts_named(name) / part
            if not _is_intact(file, expected, thorough):
                return Finding(
                    "damaged", damage=f"artifact {file}: missing, or contents do not match its checksum"
                )
        return Finding("done", record)

    def look_afresh(self, task: Task) -> None:
        """Make a network file system ask its server what of a task is new; otherwise it may recall absent files for a
        minute."""
        for path in (self.record_path(task), self.artifacts(task)):
            with suppress(FileNotFoundError):
                os.listdir(path.parent)

    def recorded(self) -> set[str]:
        """Names of all tasks that have a record, as the file system's server knows them now."""
        return {name.removesuffix(".json") for name in layout.names(self.root, "records")}

    def record(self, task: Task) -> Record | None:
        """The record of a task that is done or has failed; None when there is none or it is damaged."""
        return self.find(task).record

    def record_path(self, task: Task) -> Path:
        return self._record_path(task.name)

    def artifacts(self, task: Task) -> Path:
        """The folder with a done task's files."""
        return self.artifacts_named(task.name)

    def artifacts_named(self, name: str) -> Path:
        """`artifacts` by a task's name."""
        return layout.place(self.root, "artifacts", name)

    def log_path(self, task: Task) -> Path:
        return self.root / "logs" / f"{task.name}.log"

    def checkpoint(self, task: Task) -> Path:
        """The file for a task's resumable state."""
        return self._state(task.name)

    def records(self, kind: str) -> Iterator[Record]:
        """Every intact record of a kind, whatever grid it came from."""
        for name in sorted(name for name in self.recorded() if name.startswith(f"{kind}-")):
            try:
                record = _unseal(self._record_path(name).read_bytes())
            except OSError:
                continue
            if record is not None and record["kind"] == kind:
                yield record

    # ---- what changes it

    def open_work(self, task: Task, claim: Claim) -> Path:
        """An empty folder for a claimed task's files; what killed holders of the task left is removed."""
        for left in (self.root / "tmp").glob(f"{task.name}.*"):
            shutil.rmtree(left, ignore_errors=True)
        work = self.root / "tmp" / f"{task.name}.{claim.holder.token}"
        work.mkdir()
        self.checkpoint(task).parent.mkdir(exist_ok=True)
        return work

    def finish(self, task: Task, claim: Claim, work: Path, record: Mapping[str, Any]) -> None:
        """Publish a done task: its files first, then the record that vouches for them.

        Does nothing if the claim has passed to another process, whose result counts then.
        """
        artifacts = _describe(work)
        done = {**record, **identity(task), "status": "done", "artifacts": artifacts}
        self.adopt(task.name, claim, work, seal(done))

    def adopt(self, name: str, claim: Claim, work: Path, record: Record) -> None:
        """`finish` with a sealed record, this store's or another's, whose files lie in `work` as it says."""
        if not claim.is_mine():
            shutil.rmtree(work, ignore_errors=True)
            return
        final = self.artifacts_named(name)
        if final.exists():
            os.rename(final, self.root / "tmp" / f"{name}.replaced.{claim.holder.token}")
        if record["artifacts"]:
            _make_folder(final.parent)
            os.rename(work, final)
            atomic.sync_folder(final.parent)
        self._write_record(name, record)
        self._drop_state(name)
        for left in (self.root / "tmp").glob(f"{name}.*"):
            shutil.rmtree(left, ignore_errors=True)

    def fail(self, task: Task, claim: Claim, record: Mapping[str, Any]) -> None:
        """Record a failure, unless the claim has passed to another process."""
        if claim.is_mine():
            failed = {**record, **identity(task), "status": "failed", "artifacts": {}}
            self._write_record(task.name, seal(failed))

    def forget(self, task: Task) -> None:
        """Remove a task's record (failed, or damaged) so that the task is to do again. Its checkpoint stays."""
        with self.errors():
            self.record_path(task).unlink(missing_ok=True)

    def attempts(self, task: Task) -> Attempts:
        """What is known of the attempts at a task that is not done."""
        return Attempts(self.checkpoint(task))

    def drop_checkpoint(self, task: Task) -> None:
        self._drop_state(task.name)

    def _write_record(self, name: str, record: Record) -> None:
        path = self._record_path(name)
        _make_folder(path.parent)
        atomic.write_json(path, record, self.root / "tmp")

    def _state(self, name: str) -> Path:
        return self.root / "checkpoints" / name / "state"

    def _drop_state(self, name: str) -> None:
        shutil.rmtree(self._state(name).parent, ignore_errors=True)

    def _record_path(self, name: str) -> Path:
        return layout.place(self.root, "records", f"{name}.json")

    def _sweep_out(self) -> None:
        """Remove from tmp/ what is old and of no living claim: a task may well run longer than that."""
        now, old = time.time(), []
        for path in (self.root / "tmp").iterdir():
            with suppress(OSError):
                old += [path] if now - path.stat().st_mtime > ABANDONED else []
        held = self.claims.held() if old else {}
        for path in old:
            if path.name.partition(".")[0] not in held:
                with suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def identity(task: Task) -> Record:
    """The fields of a record that say which task it is of."""
    return {
        "schema": SCHEMA,
        "kind": task.kind,
        "key": task.key,
        "label": task.label,
        "version": task.version,
        "settings": dict(task.settings),
        "inputs": {name: needed.key for name, needed in task.inputs.items()},
    }


def failure_of(finding: Finding) -> str:
    """`cause: message` of a failed record, one line."""
    error = (finding.record or {}).get("error") or {}
    return one_line(f"{error.get('cause', 'error')}: {error.get('message', '')}")


def seal(record: Mapping[str, Any]) -> Record:
    """The record with a digest of everything else in it."""
    body = {key: value for key, value in record.items() if key != "digest"}
    return {**body, "digest": hashlib.sha256(canonical_json(body).encode()).hexdigest()}


def _make_folder(shard: Path) -> None:
    if not shard.is_dir():
        shard.mkdir(exist_ok=True)
        atomic.sync_folder(shard.parent)


def probe_writable(folder: Path) -> None:
    """Write a small file in an existing folder and remove it. Raises OSError."""
    probe = folder / f".probe.{os.getpid()}.tmp"
    try:
        atomic.write_bytes(probe, b"x" * 4096)
    finally:
        try:
            probe.unlink(missing_ok=True)
        except OSError:
            pass


def is_full(error: BaseException | None) -> bool:
    """Whether an exception says that the disk, not the task, is at fault; libraries wrap the system's error."""
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return True
        if "No space left on device" in str(cause) or "Read-only file system" in str(cause):
            return True
    return False


def _unseal(data: bytes) -> Record | None:
    """The record in a file's bytes; None unless every byte is as it was written."""
    try:
        record = json.loads(data)
        intact = record["schema"] == SCHEMA and record == seal(record) and atomic.json_bytes(record) == data
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return record if intact else None


def _is_intact(file: Path, expected: Mapping[str, Any], thorough: bool) -> bool:
    try:
        stat = file.stat()
        if stat.st_size != expected["size"]:
            return False
        unchanged = stat.st_mtime_ns == expected["changed_ns"]
        return (unchanged and not thorough) or atomic.sha256_of(file) == expected["sha256"]
    except OSError:
        return False


def _describe(work: Path) -> dict[str, dict[str, Any]]:
    """Size, time of change and sha256 of every file below a folder, each flushed to disk."""
    described = {}
    for file in sorted(path for path in work.rglob("*") if path.is_file()):
        atomic.sync_file(file)
        stat = file.stat()
        described[file.relative_to(work).as_posix()] = {
            "size": stat.st_size,
            "changed_ns": stat.st_mtime_ns,
            "sha256": atomic.sha256_of(file),
        }
    return described

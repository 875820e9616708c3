"""Two stores into one: what another store has done, brought into this one.

First everything is looked at and nothing written (`look`); only where the stores do not contradict each other is
anything brought (`bring`), task by task, each whole or not at all. So a merge may be stopped at any moment and run
again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from bench.engine import atomic
from bench.engine.store import Record, Store
from bench.errors import StoreError
from bench.text import one_line

BROUGHT, BUSY = "brought", "busy"  # what came of a task


@dataclass
class Outlook:
    """What a merge would do, and what stands against it."""

    bring: list[Record] = field(default_factory=list)  # done there, and not here
    same: int = 0  # done in both, with the same result
    damaged: list[str] = field(default_factory=list)  # there: one line each
    conflicts: list[str] = field(default_factory=list)  # done in both, with other results: one line each
    size: int = 0  # bytes of the files to bring


def look(source: Store, target: Store, versions: Mapping[str, int], measuring: Collection[str]) -> Outlook:
    """Hold the records of two stores against each other. Reads records alone, and writes nothing.

    versions: of each kind of task, what this code computes; a kind that it does not know is taken as it is.
    measuring: kinds whose results are measurements of a machine, which never agree; what the target has stays.
    What an earlier version of a kind has left beside results of this one is passed over. Raises StoreError where the
    source holds results of a kind in other versions alone: it is of other code.
    """
    found = Outlook()
    old: dict[str, Record] = {}
    current: set[str] = set()
    for name in sorted(source.recorded()):
        finding = source.find_named(name)
        if finding.status == "damaged":
            found.damaged.append(finding.damage)
            continue
        record = finding.record
        if record is None or record["status"] != "done":
            continue  # a failure is no result: the task is to do in the target
        if record["version"] != versions.get(record["kind"], record["version"]):
            old[record["kind"]] = record
            continue
        current.add(record["kind"])
        wrong = [part for part in record["artifacts"] if not _is_inside(part)]
        if wrong:
            found.damaged.append(f"record {name}: names a file outside the store: {wrong[0]!r}")
            continue
        ours = target.find_named(name)
        if ours.status != "done" or ours.record is None:
            found.bring.append(record)
            found.size += sum(part["size"] for part in record["artifacts"].values())
        elif record["kind"] in measuring or _result(ours.record) == _result(record):
            found.same += 1
        else:
            found.conflicts.append(_conflict(name, ours.record, record))
    for kind in sorted(old.keys() - current):
        name, version = f"{kind}-{old[kind]['key']}", old[kind]["version"]
        raise StoreError(
            f"{source.root} is of other code: {name} is of version {version} of the task {kind!r}, this bench makes "
            f"version {versions[kind]} and would never read it; nothing was merged"
        )
    return found


def bring(source: Store, target: Store, record: Record, copied: Callable[[int], object]) -> str:
    """Copy one done task, its files first; returns BROUGHT, BUSY (someone runs that task in the target), or one line
    on what of it is damaged in the source.

    copied: told of bytes as they are copied. Raises OSError where the target cannot be written.
    """
    name = f"{record['kind']}-{record['key']}"
    claim = target.claims.take(name)
    if claim is None:
        return BUSY
    work = target.root / "tmp" / f"{name}.{claim.holder.token}"
    try:
        if target.find_named(name).status == "done":
            return BROUGHT  # meanwhile, by another merge or a sweep
        work.mkdir()
        for part, expected in record["artifacts"].items():
            wrong = _copy(source.artifacts_named(name) / part, work / part, expected, copied)
            if wrong:
                return wrong
        log = source.root / "logs" / f"{name}.log"
        with suppress(OSError):  # for people: what it lacks damages nothing
            atomic.write_bytes(target.root / "logs" / f"{name}.log", log.read_bytes(), target.root / "tmp")
        target.adopt(name, claim, work, record)
        return BROUGHT
    finally:
        shutil.rmtree(work, ignore_errors=True)
        claim.release()


def _is_inside(part: str) -> bool:
    path = PurePosixPath(part)
    return bool(part) and not path.is_absolute() and ".." not in path.parts


def _result(record: Record) -> dict[str, Any]:
    """What of a record is the task's result: files by contents, and figures but for those of time."""
    files = {part: entry["sha256"] for part, entry in record["artifacts"].items()}
    return {"files": files, "metrics": _timeless(record["metrics"])}


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _timeless(part) for key, part in value.items() if "second" not in key}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def _conflict(name: str, ours: Record, theirs: Record) -> str:
    one, other = _result(ours), _result(theirs)
    differing = [
        file for file in one["files"] | other["files"] if one["files"].get(file) != other["files"].get(file)
    ]
    figures = one["metrics"].keys() | other["metrics"].keys()
    differing += sorted(key for key in figures if one["metrics"].get(key) != other["metrics"].get(key))
    made = "; ".join(
        f"{record['device']}, commit {(record['commit'] or 'none')[:12]}" for record in (ours, theirs)
    )
    return one_line(f"{theirs['label'] or name} ({name}): {', '.join(differing[:4])} differ ({made})", 400)


def _copy(source: Path, to: Path, expected: Mapping[str, Any], copied: Callable[[int], object]) -> str:
    """Copy one file and check it on the way; returns "" or what is wrong with the source."""
    digest, size = hashlib.sha256(), 0
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        reading = open(source, "rb")  # noqa: SIM115 - an error in it is the source's, one in writing is not
    except OSError as error:
        return f"artifact {source}: {one_line(error.strerror or str(error))}"
    with reading, open(to, "xb") as writing:
        while block := reading.read(atomic.BLOCK):
            digest.update(block)
            writing.write(block)
            size += len(block)
            copied(len(block))
        writing.flush()
        os.fsync(writing.fileno())
    if size != expected["size"] or digest.hexdigest() != expected["sha256"]:
        return f"artifact {source}: contents do not match its checksum"
    os.utime(
        to, ns=(expected["changed_ns"], expected["changed_ns"])
    )  # the record's: taken as intact without a hash
    return ""

"""Looking after a store: what in it is damaged, what belongs to nobody, how much room it takes."""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.engine.store import ABANDONED, FOLDERS, Store
from bench.engine.store.layout import names


@dataclass(frozen=True)
class Litter:
    """Something in a store that nothing needs."""

    path: Path
    why: str


def damages(store: Store) -> Iterator[str]:
    """One line for each record or artifact that is not as it was written; every byte is read."""
    for name in sorted(names(store.root, "records")):
        finding = store.find_named(name.removesuffix(".json"), thorough=True)
        if finding.status == "damaged":
            yield finding.damage


def litter(store: Store) -> Iterator[Litter]:
    """What `python -m bench store gc` removes: nothing that a record vouches for, nor what anyone is at work on."""
    recorded = store.recorded()
    for name in sorted(names(store.root, "artifacts")):
        if name in recorded or store.claims.holder(name) is not None:
            continue
        if store.find_named(name).status == "missing":  # still: it may have been finished meanwhile
            yield from _old(store.artifacts_named(name), "artifacts without a record")
    held = store.claims.held()
    for path in sorted((store.root / "tmp").iterdir()):
        if path.name.partition(".")[0] not in held:
            yield from _old(path, "left by a process that was killed")
    for path in sorted((store.root / "checkpoints").iterdir()):
        if path.name not in held and store.find_named(path.name).status == "done":
            yield Litter(path, "state of a task that is done")


def remove(found: Litter) -> None:
    if found.path.is_dir():
        shutil.rmtree(found.path, ignore_errors=True)
    else:
        found.path.unlink(missing_ok=True)


def room(store: Store) -> dict[str, tuple[int, int]]:
    """(files, bytes) of each of the store's folders, artifacts and checkpoints also by kind of task."""
    taken: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for folder in (*FOLDERS, "slurm", "tasks", "plans"):
        for file, size in _files(store.root / folder):
            parts = file.relative_to(store.root).parts
            task = next((part for part in parts[1:] if "-" in part), "")
            shown = [folder]
            if folder in ("artifacts", "checkpoints") and task:
                shown.append(f"{folder}: {task.partition('-')[0]}")
            for name in shown:
                taken[name][0] += 1
                taken[name][1] += size
    return {name: (count, size) for name, (count, size) in sorted(taken.items())}


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return path.stat().st_size if path.is_file() else sum(size for _, size in _files(path))


def _old(path: Path, why: str) -> Iterator[Litter]:
    """What nobody has touched for a day: younger things may be of a process that is about to vouch for them."""
    if time.time() - path.stat().st_mtime > ABANDONED:
        yield Litter(path, why)


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    for here, _, files in os.walk(folder):
        for file in files:
            path = Path(here, file)
            try:
                yield path, path.stat().st_size
            except FileNotFoundError:
                continue  # work goes on meanwhile

"""Where things lie in a store, and which version of that a store follows.

Records and artifacts lie in folders by the first two digits of their key, so that none of them holds all of a large
store: `records/ab/images-ab12....json`. Layout 1, before November 2026, had no such folders; `migrate` moves what it
holds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.engine import atomic
from bench.errors import StoreError

LAYOUT = 2
FILE = "store.json"  # {"layout": 2}; while a store is migrated also {"migrating": true}
SHARDED = ("artifacts", "records")
DIGITS = 2
NAME = re.compile(r"[^.].*-([0-9a-f]{16})(\.json)?")  # of a record or of a folder of artifacts


def place(root: Path, folder: str, name: str) -> Path:
    """Where the record or the artifacts of a name (`<kind>-<key>`) lie, without a suffix."""
    return root / folder / name.rpartition("-")[2][:DIGITS] / name


def names(root: Path, folder: str) -> Iterator[str]:
    """The names of all files or folders in the shards of a folder: one listing each."""
    for shard in _shards(root / folder):
        yield from os.listdir(shard)


def stamps(root: Path, folder: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name, size and time of change (ns) of all files in the shards of a folder."""
    for shard in _shards(root / folder):
        with os.scandir(shard) as entries:
            for entry in entries:
                stat = entry.stat()
                yield entry.name, (stat.st_size, stat.st_mtime_ns)


def check(root: Path) -> None:
    """Refuse a store that this version must not use. Raises StoreError; writes nothing. An absent store is fine."""
    said = _read(root)
    if said is None:
        if _unsharded(root):
            raise StoreError(
                f"the store {root} is of an earlier version: run `python -m bench store migrate --store {root}` once; "
                f"nothing in it is computed anew"
            )
    elif said["layout"] != LAYOUT:
        raise StoreError(
            f"the store {root} has layout {said['layout']}, this version of bench knows layout {LAYOUT}: use a newer "
            f"bench, or another folder with --store"
        )
    elif said.get("migrating"):
        raise StoreError(
            f"the store {root} is half migrated: run `python -m bench store migrate --store {root}` to its end"
        )


def mark(root: Path) -> None:
    """Say in a new store which layout it has."""
    if not (root / FILE).exists():
        atomic.create(root / FILE, atomic.json_bytes({"layout": LAYOUT}), root / "tmp")


def migrate(root: Path) -> int:
    """Move everything of an earlier store to where it lies now; returns how many records and folders were moved.

    May be killed at any moment and run again: each move is one rename, and until the last of them the store says that
    it is half migrated. Raises StoreError where a target is taken, OSError where the store cannot be written.
    """
    said = _read(root)
    if said is not None and not (said["layout"] == LAYOUT and said.get("migrating")):
        check(root)
        return 0
    atomic.write_json(root / FILE, {"layout": LAYOUT, "migrating": True})
    moved = 0
    for folder in SHARDED:
        for old in _unsharded(root, folder):
            new = place(root, folder, old.name)
            if new.exists():
                raise StoreError(
                    f"{old} cannot be moved: {new} is there already; remove the one that is wrong"
                )
            new.parent.mkdir(exist_ok=True)
            os.rename(old, new)
            moved += 1
        for shard in [*_shards(root / folder), root / folder]:
            if shard.is_dir():
                atomic.sync_folder(shard)
    atomic.write_json(root / FILE, {"layout": LAYOUT})
    return moved


def _read(root: Path) -> dict[str, Any] | None:
    path = root / FILE
    try:
        said = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path} cannot be read ({type(error).__name__}): it says which layout the store has"
        ) from None
    if not isinstance(said, dict) or not isinstance(said.get("layout"), int):
        raise StoreError(
            f'{path} does not say which layout the store has: {{"layout": {LAYOUT}}} is expected'
        )
    return said


def _unsharded(root: Path, *folders: str) -> list[Path]:
    """What lies as layout 1 had it."""
    found = []
    for folder in folders or SHARDED:
        if (root / folder).is_dir():
            found += [path for path in (root / folder).iterdir() if NAME.fullmatch(path.name)]
    return found


def _shards(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if len(path.name) == DIGITS)

"""What /proc says of processes that a test has started."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path


def children(process: int) -> list[int]:
    """Those that a process has started and that are still there."""
    with contextlib.suppress(OSError):
        return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def descendants(process: int) -> list[int]:
    """Its children and theirs."""
    own = children(process)
    return [*own, *itertools.chain(*map(descendants, own))]


def lives(process: int) -> bool:
    """Whether it still runs: one that was killed may wait for whoever adopted it to notice."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False

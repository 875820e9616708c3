"""Asking SLURM: does it answer, what is in its queue, how large may an array be, cancel these.

Only its command line tools are used, through bench/engine/slurm_tools.py.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from bench.engine.slurm_tools import ENDED, ONE_LINE, ask, outside_any_job
from bench.text import one_line

DEFAULT_MAX_ARRAY_SIZE = 1001
PING_SECONDS = 10.0
BATCH = 500  # job ids in one command line


@dataclass(frozen=True)
class Entry:
    """One job, or one task of an array, as the queue shows it."""

    state: str  # "PENDING", "RUNNING", "COMPLETING", "FAILED", ...
    reason: str = ""  # why it waits, e.g. "Priority"
    comment: str = ""  # what we wrote on it at submission

    @property
    def active(self) -> bool:
        return self.state not in ENDED


@contextmanager
def environment(**extra: str) -> Iterator[None]:
    """This process's own environment cleaned of any enclosing job, with `extra`, for as long as it is entered."""
    before = dict(os.environ)
    wanted = {**outside_any_job(before), **extra}
    try:
        _set_environment(wanted)
        yield
    finally:
        _set_environment(before)


def why_not_available() -> str | None:
    """None if a SLURM controller answers, else the reason in one line. Programs on PATH prove nothing: it is asked."""
    missing = [name for name in ("scontrol", "sbatch", "squeue", "srun") if shutil.which(name) is None]
    if missing:
        return f"SLURM is not installed on this machine ({', '.join(missing)} not found)"
    answer = ask("scontrol", "ping", seconds=PING_SECONDS)
    if answer is None:
        return f"SLURM does not answer (scontrol ping gave no answer within {PING_SECONDS:.0f} s)"
    if re.search(r"\bis UP\b", answer.stdout):
        return None
    said = one_line(f"{answer.stdout} {answer.stderr}".strip())
    return f"SLURM does not answer (scontrol ping: {said})"


def queue(jobs: Collection[str], mine: bool = False) -> dict[str, Entry] | None:
    """What SLURM's controller knows of some jobs (and, if `mine`, of all of this user's), by id: `12` or `12_3`.

    Ended jobs are listed for some minutes (MinJobAge). None if the controller does not answer.
    """
    wanted = sorted(set(jobs))
    if mine and not wanted:
        chosen = ["--user", str(os.getuid())]
    elif len(wanted) <= ONE_LINE and not mine:
        chosen = ["--jobs", ",".join(wanted)]
    else:
        chosen = []  # one question whatever runs, if its answer is long
    answer = ask("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r|%k", *chosen)
    if answer is None or (answer.returncode != 0 and "Invalid job id" not in answer.stderr):
        return None
    found: dict[str, Entry] = {}
    for line in answer.stdout.splitlines():
        job, state, reason, comment = (*line.strip().split("|", 3), "", "", "")[:4]
        if job:
            found[job] = Entry(state, "" if reason == "None" else reason, comment)
    return found


def accounted(jobs: Collection[str]) -> dict[str, str]:
    """Last states that the accounting knows of jobs which the controller has forgotten; {} where there is none."""
    if not jobs or shutil.which("sacct") is None:
        return {}
    answer = ask("sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", ",".join(sorted(jobs)))
    if answer is None or answer.returncode != 0:
        return {}
    states = {}
    for line in answer.stdout.splitlines():
        job, _, state = line.partition("|")
        states[job] = state.split()[0] if state.split() else ""  # "CANCELLED by 0"
    return states


def cancel(jobs: Collection[str]) -> str | None:
    """Cancel jobs; None if SLURM took it, else what it said."""
    wanted = sorted(set(jobs))
    for at in range(0, len(wanted), BATCH):
        answer = ask("scancel", *wanted[at : at + BATCH])
        if answer is None:
            return "SLURM does not answer"
        if answer.returncode != 0 and "Invalid job id" not in answer.stderr:
            return one_line(answer.stderr or answer.stdout)
    return None


@lru_cache(maxsize=1)
def max_array_size() -> int:
    """How many tasks an array may have on this site (MaxArraySize is one more than the highest index)."""
    answer = ask("scontrol", "show", "config")
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer.stdout, re.MULTILINE) if answer else None
    size = int(found.group(1)) if found else DEFAULT_MAX_ARRAY_SIZE
    return max(1, size)


def _set_environment(wanted: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    os.environ.update(wanted)

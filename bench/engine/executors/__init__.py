"""Ways to run tasks, behind one protocol (protocol.py); `choose` picks one and says why.

serial.py runs them here, local.py in a pool of processes on this machine, slurm/ as jobs of a cluster.
To add one: a class that fits `protocol.Executor` in any module that can be imported, and `--executor module:Class`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pkgutil import resolve_name
from typing import Any

from bench.engine.devices import gpu_count
from bench.engine.executors.protocol import Context, Executor
from bench.engine.store import Store
from bench.engine.task import Task
from bench.errors import BenchError
from bench.grid import PAPER_SCALE
from bench.text import one_line

NAMES = ("serial", "local", "slurm")
MEMBERS = ("cancel", "close", "detaches", "poll", "stop", "submit")  # of an executor


def choose(asked: str | None, scale: str, jobs: int | None, device: str | None) -> tuple[str, str]:
    """(name of the executor, a sentence that says why it). Raises BenchError if what was asked for cannot be had.

    Asked for nothing: SLURM at the paper's scale where a controller answers, else one process per GPU if there are
    several, or per `jobs`, else this process.
    """
    if asked == "slurm" or (asked is None and scale == PAPER_SCALE and jobs is None):
        from bench.engine.executors.slurm import why_not_available

        reason = why_not_available()
        if asked == "slurm":
            if reason is not None:
                raise BenchError(f"--executor slurm: {reason}")
            return "slurm", "asked for with --executor"
        if reason is None:
            return "slurm", "the paper's scale, and a SLURM controller answers"
    if asked is not None:
        if asked not in NAMES:
            outside(asked)
        return asked, "asked for with --executor"
    if jobs is not None:
        return ("local", f"--jobs {jobs}") if jobs > 1 else ("serial", "--jobs 1")
    if device in (None, "cuda") and gpu_count() > 1:
        return "local", f"this machine has {gpu_count()} GPUs"
    return "serial", "one device; --jobs N runs N tasks at a time"


def outside(name: str) -> Callable[[Context], Executor]:
    """The class behind `module:Class`, from outside this package. Raises BenchError, one line."""
    said = f"--executor {name!r}:"
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise BenchError(f"{said} unknown; allowed: {', '.join(NAMES)}, or module:Class")
    try:
        found: Any = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BenchError(f"{said} cannot be imported: {one_line(str(error))}") from error
    lacking = [member for member in MEMBERS if not hasattr(found, member)]
    if lacking or not callable(found):
        raise BenchError(f"{said} is no executor: it lacks {', '.join(lacking) or 'a constructor'}")
    return found


def workers(name: str, jobs: int | None, device: str | None) -> int:
    """How many tasks an executor runs at a time on this machine."""
    if name != "local":
        return 1
    return jobs or max(1, gpu_count() if device in (None, "cuda") else 1)


def make(name: str, context: Context) -> Executor:
    """The executor called `name`."""
    if name == "serial":
        from bench.engine.executors.serial import SerialExecutor

        return SerialExecutor(context)
    if name == "local":
        from bench.engine.executors.local import LocalExecutor

        return LocalExecutor(context)
    if name == "slurm":
        from bench.engine.executors.slurm import SlurmExecutor

        return SlurmExecutor(context)
    return outside(name)(context)


def queued(store: Store, tasks: Sequence[Task]) -> list[str]:
    """What of some tasks waits or runs in SLURM, in lines for people; empty where nothing was ever submitted."""
    from bench.engine.executors.slurm import queued_lines

    return queued_lines(store, tasks)

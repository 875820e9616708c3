"""Why a task failed, in the few words that a sweep's last lines and `--status` sort failures by."""

from __future__ import annotations

import sys

from bench.errors import BenchError, MissingData
from bench.grid_file import one_line
from bench.task import Task
from smi.errors import CheckpointError, NonFiniteLoss, SmiError

NAN, MEMORY, MISSING = "non-finite loss", "out of memory", "missing data"
CHECKPOINT, REFUSED, DIED, OTHER = "bad checkpoint", "refused setting", "worker died", "error"
KEEPS_STATE = (MEMORY, DIED)  # another machine, or a smaller batch elsewhere, may go on from the saved state


def cause_of(error: BaseException, task: Task) -> tuple[str, str]:
    """(cause, message in one line) of what a task raised."""
    message = one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    if isinstance(error, NonFiniteLoss):
        return NAN, one_line(str(error))
    if _is_out_of_memory(error):
        return MEMORY, f"{message}{_smaller_batch(task)}"
    if isinstance(error, CheckpointError):
        return CHECKPOINT, one_line(str(error))
    if isinstance(error, (MissingData, FileNotFoundError)):
        return MISSING, one_line(str(error))
    if isinstance(error, (SmiError, BenchError)):
        return REFUSED, one_line(str(error))
    return OTHER, message


def _is_out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")
    out_of_memory = getattr(torch, "OutOfMemoryError", None) or getattr(
        getattr(torch, "cuda", None), "OutOfMemoryError", None
    )
    if out_of_memory is not None and isinstance(error, out_of_memory):
        return True
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def _smaller_batch(task: Task) -> str:
    batch = task.settings.get("batch_size")
    return (
        f"; batch_size is {batch}, try {batch // 2} or less" if isinstance(batch, int) and batch > 1 else ""
    )

"""Why a task failed, in the few words that a sweep's last lines and `--status` sort failures by."""

from __future__ import annotations

import sys

from bench.engine.task import Task
from bench.errors import BenchError, MissingData, causes
from bench.text import one_line

NAN, MEMORY, MISSING = "non-finite loss", "out of memory", "missing data"
CHECKPOINT, REFUSED, DIED, OTHER = "bad checkpoint", "refused setting", "worker died", "error"
MINUTES = "needs more minutes"
KEEPS_STATE = (MEMORY, DIED)  # another machine, or a smaller batch elsewhere, may go on from the saved state


def cause_of(error: BaseException, task: Task) -> tuple[str, str]:
    """(cause, message in one line) of what a task raised."""
    message = one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    if is_a(error, "smi.errors", "NonFiniteLoss"):
        return NAN, one_line(str(error))
    if _is_out_of_memory(error):
        return MEMORY, f"{message}{_smaller_batch(task)}"
    if is_a(error, "smi.errors", "CheckpointError"):
        return CHECKPOINT, one_line(str(error))
    if isinstance(error, (MissingData, FileNotFoundError)):
        return MISSING, one_line(str(error))
    if isinstance(error, BenchError) or is_a(error, "smi.errors", "SmiError"):
        return REFUSED, one_line(str(error))
    return OTHER, message


def breaks_device(error: BaseException) -> bool:
    """Whether it leaves this process without its GPU: after such an error every later call of CUDA fails."""
    return any(is_a(cause, "torch", "AcceleratorError") for cause in causes(error))


def is_a(error: BaseException, module: str, name: str) -> bool:
    """`isinstance` without importing: what nobody has imported, nobody has raised. Keeps torch out of the sweep."""
    known = getattr(sys.modules.get(module), name, None)
    return known is not None and isinstance(error, known)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or is_a(error, "torch", "OutOfMemoryError"):
        return True
    return is_a(error, "torch.cuda", "OutOfMemoryError") or "can't allocate memory" in str(error)


def _smaller_batch(task: Task) -> str:
    batch = task.settings.get("batch_size")
    return (
        f"; batch_size is {batch}, try {batch // 2} or less" if isinstance(batch, int) and batch > 1 else ""
    )

"""Threads of a task on the CPU.

Our own models are so small that a second thread gains nothing, and would only make the last bits of a training, and
so its figures, depend on how many cores a machine has. Models of real size take every core.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bench.engine.task import Task


@contextmanager
def fitting(task: Task, device: str) -> Iterator[None]:
    """One thread while a task on the CPU is about one of our own architectures; torch's own number otherwise."""
    before = torch.get_num_threads()
    if device == "cpu" and _is_small(task):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _is_small(task: Task) -> bool:
    """Whether the task, or the teacher behind it, is about one of bench.models.ARCHITECTURES."""
    model = task.settings.get("model")
    own = isinstance(model, dict) and "architecture" in model
    return own or any(_is_small(needed) for needed in task.inputs.values())

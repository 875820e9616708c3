"""What each kind of task does: (settings, input artifacts) -> (metrics, output artifacts). No dispatch, no paths.

To add a kind, write a module with `run(job) -> metrics` and name it here. A kind's version is part of its tasks'
keys: raise it when the code changes what it computes, and only then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.engine.task import Job
from bench.tasks import background, cost, deploy, evaluate, images, quantize, teacher, threads, transfer
from smi.device import float32_arithmetic


@dataclass(frozen=True)
class Kind:
    """A version, what does the work (writes artifacts to job.out and returns metrics, JSON values), and whether it is
    resumable: saves its state when told to stop, and goes on from there. What is not must fit a job's time limit.
    measures: its metrics are a machine's speed, of which no two runs agree."""

    version: int
    work: Callable[[Job], dict[str, Any]]
    resumable: bool = False
    measures: bool = False

    def run(self, job: Job) -> dict[str, Any]:
        # float32 means IEEE's on every device, whatever torch's own default is, unless the task's precision says tf32
        with threads.fitting(job.task, job.device), float32_arithmetic(job.device):
            return self.work(job)


KINDS: dict[str, Kind] = {
    "teacher": Kind(1, teacher.run, resumable=True),
    "images": Kind(1, images.run, resumable=True),
    "evaluate": Kind(1, evaluate.run),
    "quantize": Kind(1, quantize.run),
    "background": Kind(1, background.run),
    "transfer": Kind(2, transfer.run, resumable=True),
    "cost": Kind(2, cost.run, measures=True),
    "deploy": Kind(2, deploy.run, measures=True),
}

"""Kind "evaluate": the full-precision model's top-1 on the test split.

inputs: teacher. settings: test (bench.datasets.fingerprint).
"""

from __future__ import annotations

from typing import Any

from bench import models
from bench.datasets import open_split
from bench.engine.task import Job
from bench.tasks.scoring import top1


def run(job: Job) -> dict[str, Any]:
    """Metrics: top1 (%), pictures (their number)."""
    model, data = models.load(job.inputs["teacher"], job.device)
    test = open_split(job.task.settings["test"], data, job.sources)
    accuracy = top1(model, test, job.device, job.progress, job.should_stop)
    return {"top1": accuracy, "pictures": len(test)}

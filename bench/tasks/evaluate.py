"""Kind "evaluate": the full-precision model's top-1 on the test split.

inputs: teacher. settings: test (bench.datasets.fingerprint).
"""

from __future__ import annotations

from typing import Any

from bench import models
from bench.engine.task import Job
from bench.tasks import answers
from bench.tasks.scoring import answered_right
from bench.tasks.splits import split_of


def run(job: Job) -> dict[str, Any]:
    """Metrics: top1 (%), pictures (their number), right (which of them, bench.tasks.answers)."""
    model, data = models.load(job.inputs["teacher"], job.device)
    test = split_of(job, "test", data)
    right = answered_right(model, test, job.device, job.progress, job.should_stop)
    top1 = 100 * int(right.sum()) / len(right)
    return {"top1": top1, "pictures": len(test), answers.FIELD: answers.pack(right)}

"""Tasks as jobs of a SLURM cluster: one array per stage and class of resources, watched through our own records.

client.py asks SLURM, ledger.py remembers which job holds which task, view.py puts the two together, arrays.py
submits, job.py is what runs inside a job, executor.py sees a sweep through. docs/slurm.md tells the user's side.
"""

from __future__ import annotations

from bench.engine.executors.slurm.client import why_not_available
from bench.engine.executors.slurm.executor import SlurmExecutor
from bench.engine.executors.slurm.view import queued_lines

__all__ = ["SlurmExecutor", "queued_lines", "why_not_available"]

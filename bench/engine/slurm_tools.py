"""SLURM's command line tools, run as if outside any job, and what is known of jobs without asking.

Every question has a time limit, and "SLURM does not say" is an answer of its own (None), never taken for "the job has
ended".
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

KEPT = frozenset({"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"})  # say which cluster to talk to, and as whom
OF_A_JOB = ("SLURM_", "SLURMD_", "SUBMITIT_", "PMI_", "PMIX_")
OF_TOOLS = ("SQUEUE_", "SACCT_")  # a user's habits (formats, filters) would change what the tools print
GPU_LISTS = ("CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
# A SLURM job in one of these states has ended; in any other, also one that this list does not know, it may still run.
ENDED = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL"),
        *("OUT_OF_MEMORY", "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"),
    }
)


def job_id(environment: Mapping[str, str]) -> str | None:
    """This process's job as SLURM's tools print it: `12` or, in an array, `12_3`."""
    if "SLURM_ARRAY_JOB_ID" in environment and "SLURM_ARRAY_TASK_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID")


def outside_any_job(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what an enclosing SLURM job put there: sbatch and srun would take it for options."""
    inside = "SLURM_JOB_ID" in environment
    return {
        name: value
        for name, value in environment.items()
        if name in KEPT or not (name.startswith(OF_A_JOB) or (inside and name in GPU_LISTS))
    }


def ask(*command: str, seconds: float = 30) -> subprocess.CompletedProcess[str] | None:
    """Run one of SLURM's tools; None if it cannot be run or does not end in time."""
    clean = {
        name: value for name, value in outside_any_job(os.environ).items() if not name.startswith(OF_TOOLS)
    }
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=seconds, env=clean
        )
    except (OSError, subprocess.TimeoutExpired):
        return None

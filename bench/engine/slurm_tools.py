"""SLURM's command line tools, run as if outside any job, and what is known of jobs without asking.

Every question has a time limit, and "SLURM does not say" is an answer of its own (None), never taken for "the job has
ended".
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Mapping
from functools import lru_cache

KEPT = frozenset({"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"})  # say which cluster to talk to, and as whom
OF_A_JOB = ("SLURM_", "SLURMD_", "SUBMITIT_", "PMI_", "PMIX_")
OF_TOOLS = ("SQUEUE_", "SACCT_")  # a user's habits (formats, filters) would change what the tools print
ONE_LINE = 500  # job ids in one command line; of more, the whole queue is asked for
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


def cluster(environment: Mapping[str, str]) -> str:
    """The name of the cluster that this process's job belongs to; "" outside any job."""
    return environment.get("SLURM_CLUSTER_NAME", "") if "SLURM_JOB_ID" in environment else ""


@lru_cache(maxsize=1)
def asked_cluster() -> str:
    """The name of the cluster that SLURM's tools speak of here; "" where none says so."""
    inside = cluster(os.environ)
    if inside:
        return inside
    answer = ask("scontrol", "show", "config", seconds=10)
    found = re.search(r"^ClusterName\s*=\s*(\S+)", answer.stdout, re.MULTILINE) if answer else None
    return found.group(1) if found else ""


def job_states(jobs: Collection[str]) -> dict[str, str] | None:
    """The states of jobs, by id as SLURM's tools print it, from one call of squeue; those that it does not know are
    not there. None if it does not answer."""
    mains = sorted({job.partition("_")[0] for job in jobs})
    chosen = ["--jobs", ",".join(mains)] if len(mains) <= ONE_LINE else []
    answer = ask("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T", *chosen, seconds=20)
    if answer is None or (answer.returncode != 0 and "Invalid job id" not in answer.stderr):
        return None
    pairs = (line.strip().partition("|") for line in answer.stdout.splitlines())
    return {job: state for job, _, state in pairs if job in jobs}


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

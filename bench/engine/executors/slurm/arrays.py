"""Submitting: tasks cut into arrays by stage, class of resources and family, and handed to SLURM through submitit."""

from __future__ import annotations

import contextlib
import io
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.engine import provenance
from bench.engine.executors.protocol import Context
from bench.engine.executors.slurm import client
from bench.engine.executors.slurm.job import TOKEN, SlurmTask
from bench.engine.executors.slurm.ledger import Ledger, Submission, new_token, pack_sources
from bench.engine.task import Task
from bench.errors import BenchError
from bench.grid import Resources
from bench.text import one_line

FEW = 4  # tasks of one family that are not worth an array of their own
SINGLY = 8  # jobs of one array that a dependency names one by one
TIME_OUTS = 1000  # requeues after time-outs: each starts from saved state, so there is no reason to count
LIMITS = (
    "MaxSubmit",
    "SubmitJobLimit",
    "SubmitLimit",
    "MaxJobCount",
    "max job count",
    "Resource temporarily",
)
SILENCES = ("Unable to contact", "Socket timed out", "Connection refused", "dependency problem")


class LimitReached(Exception):
    """The site takes no more jobs of this user for now."""


class TryAgain(Exception):
    """SLURM does not answer just now, or a job to wait for has ended meanwhile."""


@dataclass(frozen=True)
class Array:
    """Tasks of one stage and family with the same resources: one job, or one array."""

    tasks: tuple[Task, ...]
    resources: Resources
    after: tuple[
        str, ...
    ]  # job ids that must have ended first, however they ended: the task checks its inputs

    @property
    def kinds(self) -> str:
        return "+".join(dict.fromkeys(task.kind for task in self.tasks))


def depth(task: Task, known: dict[str, int]) -> int:
    """How many stages lie before a task."""
    if task.name not in known:
        known[task.name] = 1 + max((depth(needed, known) for needed in task.inputs.values()), default=-1)
    return known[task.name]


def families(tasks: Sequence[Task]) -> dict[str, str]:
    """Task name -> the first-stage task that it goes back to, of several the one that most go back to: for a model's
    tasks its weights. "" for tasks of the first stage, which wait for nothing, and where FEW or fewer go back there."""
    roots: dict[str, frozenset[str]] = {}

    def roots_of(task: Task) -> frozenset[str]:
        if task.name not in roots:
            above = [roots_of(needed) for needed in task.inputs.values()]
            roots[task.name] = frozenset().union(*above) if above else frozenset((task.name,))
        return roots[task.name]

    many = Counter(root for task in tasks if task.inputs for root in roots_of(task))
    found = {}
    for task in tasks:
        root = max(roots_of(task), key=lambda root: (many[root], root))
        found[task.name] = root if task.inputs and many[root] > FEW else ""
    return found


def cut(
    tasks: Sequence[Task], resources: Mapping[str, Resources], largest: int
) -> list[tuple[tuple[Task, ...], Resources]]:
    """Tasks in groups of one stage, one class of resources and one family, none of more than `largest` jobs, early
    stages first. An array waits as a whole: without families a large model's images would hold a small one's tables."""
    depths: dict[str, int] = {}
    groups: dict[tuple[int, str, str], list[Task]] = defaultdict(list)
    classes: dict[tuple[int, str, str], Resources] = {}
    family = families(tasks)
    for task in tasks:
        wanted = resources.get(task.kind, Resources())
        group = (depth(task, depths), wanted.model_dump_json(), family[task.name])
        groups[group].append(task)
        classes[group] = wanted
    cuts = []
    for group in sorted(groups, key=lambda entry: entry[0]):
        most = largest * classes[group].tasks_per_job
        for at in range(0, len(groups[group]), most):
            cuts.append((tuple(groups[group][at : at + most]), classes[group]))
    return cuts


def signal_delay(minutes: int) -> int:
    """Seconds before the time limit at which a job is told to save its state.

    SLURM looks every 30 s and signals up to that much early, so a short limit wants a short delay: a healthy job
    would be told to stop as soon as it starts.
    """
    return max(15, min(90, 6 * minutes))


def parameters(array: Array, token: str) -> dict[str, Any]:
    """The array's resources in submitit's words."""
    wanted = array.resources
    given: dict[str, Any] = {
        "name": f"smi-{array.kinds}"[:64],
        "timeout_min": wanted.minutes,
        "nodes": 1,
        "tasks_per_node": 1,
        "cpus_per_task": wanted.cpus,
        "mem_gb": wanted.memory_gb,
        "slurm_comment": token,
        "slurm_signal_delay_s": signal_delay(wanted.minutes),
        # Since SLURM 22.05 srun does not take --cpus-per-task over from the job.
        "slurm_srun_args": [f"--cpus-per-task={wanted.cpus}"],
        "slurm_wckey": wanted.wckey or "",
        "slurm_additional_parameters": {"requeue": True, "chdir": str(provenance.ROOT)},
    }
    optional = {
        "slurm_partition": wanted.partition,
        "slurm_account": wanted.account,
        "slurm_qos": wanted.qos,
        "slurm_constraint": wanted.constraint,
        "slurm_array_parallelism": wanted.array_parallelism,
        "slurm_dependency": f"afterany:{':'.join(array.after)}" if array.after else None,
        "slurm_setup": list(wanted.setup) or None,
        "gpus_per_node": wanted.gpus or None,
    }
    return given | {name: value for name, value in optional.items() if value is not None}


def submit(array: Array, context: Context, ledger: Ledger) -> Submission:
    """Hand an array to SLURM; it is in the ledger before and, with its job id, after.

    Raises BenchError if SLURM refuses it, LimitReached or TryAgain if that is only for now.
    """
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    delay = signal_delay(array.resources.minutes)
    submission = Submission(
        token=new_token(),
        tasks=tuple(task.name for task in array.tasks),
        device=context.device,
        sources=pack_sources(context.sources),
        cpus=array.resources.cpus,
        gpus=array.resources.gpus,
        patience=max(5.0, delay - 10.0),
        code=provenance.code_state(),
        minutes=array.resources.minutes,
        tasks_per_job=array.resources.tasks_per_job,
    )
    check_path(ledger.logs.resolve())
    ledger.write_tasks(array.tasks)
    ledger.write(submission)
    call = SlurmTask(str(ledger.store.root.resolve()), context.kinds)
    try:
        # submitit repeats on standard error what it raises.
        with client.environment(**{TOKEN: submission.token}), contextlib.redirect_stderr(io.StringIO()):
            executor = submitit.AutoExecutor(
                ledger.logs.resolve(), cluster="slurm", slurm_max_num_timeout=TIME_OUTS
            )
            executor.update_parameters(**parameters(array, submission.token))
            jobs = executor.submit_array([call] * submission.size)
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        ledger.remove(submission)
        raise _refusal(array, str(error)) from error
    submission = replace(submission, job=jobs[0].job_id.partition("_")[0])
    ledger.write(submission)
    return submission


def check_path(logs: Path) -> None:
    """Refuse a store whose path SLURM would read otherwise than it is: it expands % in names of logs, and its parsers
    of options disagree on quotes, backslashes and line breaks. Raises BenchError."""
    wrong = sorted({char for char in str(logs) if char in "%\\'\"" or not char.isprintable()})
    if wrong:
        raise BenchError(
            f"--store {str(logs.parents[1])!r}: SLURM writes no logs to a path with {', '.join(map(repr, wrong))} "
            f"in it; give a store whose path has no %, quote, backslash, or line break"
        )


def _refusal(array: Array, said: str) -> Exception:
    said = one_line(said.replace("sbatch: error:", ""))
    if any(limit in said for limit in LIMITS):
        return LimitReached(said)
    if any(silence in said for silence in SILENCES):
        return TryAgain(said)
    asked = array.resources.model_dump(exclude_defaults=True)
    shown = ", ".join(f"{name}: {value}" for name, value in asked.items()) or "defaults"
    return BenchError(
        f"SLURM refuses the jobs of kind {array.kinds}: {said} (the grid's resources ask for {shown})"
    )


def jobs_before(tasks: Collection[Task], where: Mapping[str, str]) -> tuple[str, ...]:
    """Ids of the jobs that hold inputs of these tasks, given task name -> job id of what is in SLURM now: jobs of an
    array one by one where they are few, else the whole array, for sbatch takes no list of any length."""
    needed = {entry.name for task in tasks for entry in task.inputs.values()}
    of_array: dict[int, set[str]] = defaultdict(set)
    for name in needed & where.keys():
        of_array[_place(where[name])[0]].add(where[name])
    before: list[str] = []
    for array, jobs in sorted(of_array.items()):
        before += sorted(jobs, key=_place) if len(jobs) <= SINGLY else [str(array)]
    return tuple(before)


def _place(job: str) -> tuple[int, int]:
    """Array and index of a job."""
    array, _, index = job.partition("_")
    return int(array), int(index or 0)

"""The ledger: which SLURM job holds which task. Files in the store, so any later sweep finds its way back.

    slurm/<token>.json     one submission (a job or an array): its tasks in the order of the array's indices, its job id
    tasks/<task>.json      the tasks themselves, for the jobs to read
    logs/slurm/            what SLURM and submitit write: <job>_0_log.out, .err

A submission is written before it is submitted and its token goes along as the jobs' comment and in their environment,
so one whose sweep was killed before it could note the job's id is found in SLURM's queue all the same.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.engine import atomic
from bench.engine.executors.slurm.client import Entry
from bench.engine.store import Store
from bench.engine.task import Sources, Task
from bench.errors import BenchError

FOLDERS = ("slurm", "tasks", "logs/slurm")
LOGS = "logs/slurm"
MARK = "smi-"  # what our jobs' comments begin with
KEPT_SECONDS = 24 * 3600.0  # an ended submission with unfinished tasks stays this long, for people to look at


@dataclass(frozen=True)
class Submission:
    """One job or array. Everything a job needs to know besides its task."""

    token: str
    tasks: tuple[str, ...]  # names; job 0 of the array has the first `tasks_per_job` of them, and so on
    device: str | None
    sources: Mapping[str, Any]
    cpus: int
    gpus: int
    patience: float  # seconds that a job may take to save its state when told to stop
    code: Mapping[str, Any]  # commit and dirty hash at submission
    minutes: int = 0  # time limit of the job
    tasks_per_job: int = 1
    submitted: float = field(default_factory=time.time)
    job: str | None = None

    def job_of(self, index: int) -> str | None:
        """The id, as SLURM's tools print it, of the job that holds a task."""
        if self.job is None:
            return None
        return f"{self.job}_{index // self.tasks_per_job}" if self.size > 1 else self.job

    @property
    def size(self) -> int:
        """Jobs in the array."""
        return -(-len(self.tasks) // self.tasks_per_job)

    def tasks_of(self, index: int) -> tuple[str, ...]:
        """What a job of the array runs, in order."""
        return self.tasks[index * self.tasks_per_job : (index + 1) * self.tasks_per_job]

    def jobs(self) -> dict[str, str]:
        """Task name -> job id."""
        if self.job is None:
            return {}
        return {name: str(self.job_of(index)) for index, name in enumerate(self.tasks)}

    def unpacked_sources(self) -> Sources:
        checkpoints, decode_cache = self.sources["checkpoints"], self.sources.get("decode_cache")
        return Sources(
            data={name: Path(path) for name, path in self.sources["data"].items()},
            checkpoints=Path(checkpoints) if checkpoints else None,
            download=self.sources["download"],
            include=tuple(Path(path) for path in self.sources.get("include", ())),
            files=tuple(Path(path) for path in self.sources.get("files", ())),
            decode_cache=Path(decode_cache) if decode_cache else None,
            engine=self.sources.get("engine", Sources.engine),
        )


def new_token() -> str:
    return MARK + uuid.uuid4().hex[:16]


def pack_sources(sources: Sources) -> dict[str, Any]:
    """Sources as JSON, with absolute paths: jobs start in another folder."""
    return {
        "data": {name: str(Path(path).resolve()) for name, path in sources.data.items()},
        "checkpoints": str(Path(sources.checkpoints).resolve()) if sources.checkpoints else None,
        "download": sources.download,
        "include": [str(Path(path).resolve()) for path in sources.include],
        "files": [str(Path(path).resolve()) for path in sources.files],
        "decode_cache": str(Path(sources.decode_cache).resolve()) if sources.decode_cache else None,
        "engine": sources.engine,
    }


class Ledger:
    """The submissions of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folder = store.root / "slurm"
        self._known: dict[str, Submission] = {}  # those with a job id never change

    @property
    def logs(self) -> Path:
        return self.store.root / LOGS

    def prepare(self) -> None:
        """Make the folders. Raises StoreError."""
        with self.store.errors():
            for folder in FOLDERS:
                (self.store.root / folder).mkdir(parents=True, exist_ok=True)

    def write(self, submission: Submission) -> None:
        with self.store.errors():
            atomic.write_json(
                self.folder / f"{submission.token}.json", asdict(submission), self.store.root / "tmp"
            )

    def remove(self, submission: Submission) -> None:
        """Forget a submission and what submitit left of it, but for its logs."""
        with self.store.errors():
            (self.folder / f"{submission.token}.json").unlink(missing_ok=True)
            for job in submission.jobs().values():
                for end in ("0_result.pkl", "submitted.pkl"):
                    (self.logs / f"{job}_{end}").unlink(missing_ok=True)
            if submission.job is not None:
                (self.logs / f"{submission.job}_submission.sh").unlink(missing_ok=True)
        self._known.pop(submission.token, None)

    def read(self, token: str) -> Submission:
        """One submission. Raises BenchError if it is not there or not readable."""
        path = self.folder / f"{token}.json"
        try:
            value = json.loads(path.read_bytes())
            return Submission(**{**value, "tasks": tuple(value["tasks"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchError(f"{path}: not a submission ({type(error).__name__})") from error

    def all(self) -> list[Submission]:
        """Every submission, oldest first."""
        try:
            tokens = {path.stem for path in self.folder.iterdir() if path.suffix == ".json"}
        except FileNotFoundError:
            return []
        for token in set(self._known) - tokens:
            del self._known[token]
        found = []
        for token in tokens:
            try:
                submission = self._known.get(token) or self.read(token)
            except BenchError:
                continue  # removed meanwhile, or damaged: claims still keep its tasks from running twice
            if submission.job is not None:
                self._known[token] = submission
            found.append(submission)
        return sorted(found, key=lambda submission: (submission.submitted, submission.token))

    def write_tasks(self, tasks: Iterable[Task]) -> None:
        """Tasks and everything they need, as files for the jobs."""
        with self.store.errors():
            for task in tasks:
                self._write_task(task)

    def read_task(self, name: str) -> Task:
        """A task from its file. Raises BenchError if it is damaged: its key is checked."""
        path = self.store.root / "tasks" / f"{name}.json"
        try:
            value = json.loads(path.read_bytes())
            inputs = {key: self.read_task(needed) for key, needed in value.pop("inputs").items()}
            task = Task(**value, inputs=inputs)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchError(f"{path}: not a task ({type(error).__name__})") from error
        if task.name != name:
            raise BenchError(f"{path}: contents do not match its name")
        return task

    def _write_task(self, task: Task) -> None:
        path = self.store.root / "tasks" / f"{task.name}.json"
        if path.exists():
            return
        for needed in task.inputs.values():
            self._write_task(needed)
        value = {
            "kind": task.kind,
            "settings": dict(task.settings),
            "version": task.version,
            "label": task.label,
            "inputs": {key: needed.name for key, needed in task.inputs.items()},
        }
        atomic.write_json(path, value, self.store.root / "tmp")


def find_lost_ids(submissions: Iterable[Submission], queue: Mapping[str, Entry]) -> list[Submission]:
    """The submissions, those without a job id given the one under which SLURM's queue has their token."""
    by_comment = {entry.comment: job.partition("_")[0] for job, entry in queue.items() if entry.comment}
    return [
        replace(submission, job=by_comment[submission.token])
        if submission.job is None and submission.token in by_comment
        else submission
        for submission in submissions
    ]


def entry_of(job: str, submission: Submission, queue: Mapping[str, Entry]) -> Entry | None:
    """A job's entry in the queue; None if the number now belongs to another job (a controller that began anew)."""
    entry = queue.get(job)
    if entry is not None and entry.comment.startswith(MARK) and entry.comment != submission.token:
        return None
    return entry

"""Whole sweeps on SLURM: same tables as in series, resources as asked for, once and only once, detached and back."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections import Counter

from cluster import Cluster
from counting import KINDS
from lab import PAPER, ROOT, Lab, until


def queue(*options: str) -> list[str]:
    return subprocess.run(
        ["squeue", "-h", *options], capture_output=True, text=True, check=True
    ).stdout.split()


def test_the_table_is_the_one_made_in_series(lab: Lab):
    lab.write([1, 2], [10, 20])
    answer = lab.sweep()
    assert answer.returncode == 0, answer.stderr
    assert lab.table() == lab.serial()
    assert "executor: slurm (asked for with --executor)" in answer.stdout


def test_resources_are_asked_for_and_seen(lab: Lab):
    lab.write(
        *([1, 2, 3, 4], [10]),
        settings={"first": {"steps": 10, "seconds": 0.2}},
        **{"gpus": 1, "cpus": 2, "array_parallelism": 2, "setup": ["export COUNTING_SETUP=loaded"]},
    )
    answer = lab.sweep()
    assert answer.returncode == 0, answer.stderr
    starts = [entry for entry in lab.trace("start") if entry["task"].startswith("first")]
    assert len(starts) == 4
    assert all(entry["CUDA_VISIBLE_DEVICES"] in {"0", "1"} for entry in starts)
    assert all(entry["SLURM_CPUS_PER_TASK"] == "2" and entry["setup"] == "loaded" for entry in starts)
    assert at_once(lab) <= 2

    for record in lab.records("first"):
        assert record["slurm_job_id"].count("_") == 1, "one array for the stage"
        assert (lab.store / record["slurm"]["log"]).is_file() and (lab.store / record["log"]).is_file()
        assert record["slurm"]["gpus"] in {"0", "1"} and record["cpus"] >= 1
        assert record["code_changed"] is False
    assert len({record["slurm_job_id"].split("_")[0] for record in lab.records("first")}) == 1


def test_short_tasks_share_jobs_and_processes(lab: Lab):
    lab.write([1, 2, 3, 4, 5], [10], tasks_per_job=3)
    answer = lab.sweep()
    assert answer.returncode == 0, answer.stderr
    assert lab.table() == lab.serial()
    jobs = Counter(record["slurm_job_id"] for record in lab.records("first"))
    assert sorted(jobs.values()) == [2, 3]
    assert len(list((lab.store / "logs").glob("first-*.log"))) == 5


def at_once(lab: Lab) -> int:
    """The greatest number of first tasks that ran at one time."""
    entries = [entry for entry in lab.trace() if entry["task"].startswith("first")]
    running, most = 0, 0
    for entry in sorted(entries, key=lambda entry: entry["time"]):
        running += 1 if entry["what"] == "start" else -1
        most = max(most, running)
    return most


def test_a_stage_too_large_for_the_site_is_split(lab: Lab, cluster: Cluster):
    lab.write([1, 2, 3, 4, 5, 6], [10])
    answer = lab.sweep()
    assert answer.returncode == 0, answer.stderr
    jobs = [record["slurm_job_id"].partition("_") for record in lab.records("first")]
    arrays = Counter(main for main, _, _ in jobs)
    assert sorted(arrays.values()) == [1, 5], "MaxArraySize of this cluster is 5"


def test_two_sweeps_started_together_do_each_task_once(lab: Lab):
    lab.write([1, 2, 3], [10], settings={"first": {"steps": 10, "seconds": 0.1}})
    both = [lab.start("--executor", "slurm") for _ in range(2)]
    answers = [lab.finish(process) for process in both]
    assert [answer.returncode for answer in answers] == [0, 0], answers
    assert sorted(entry["task"] for entry in lab.trace("start")) == sorted(
        [*(f"first {seed}" for seed in (1, 2, 3)), *(f"second 10 of first {seed}" for seed in (1, 2, 3))]
    )
    # The second found the first one's jobs in the ledger: no job of its own waited for a claim.
    assert len({record["slurm_job_id"].split("_")[0] for kind in KINDS for record in lab.records(kind)}) == 2


def test_detached_watched_interrupted_and_watched_again(lab: Lab):
    lab.write([1, 2], [10], settings={"first": {"steps": 220, "seconds": 0.1}})
    detached = lab.sweep("--detach")
    assert detached.returncode == 0, detached.stderr
    assert "submitted" in detached.stdout

    # What waits is shown from any terminal; SLURM says why once its scheduler has looked at the job.
    until(lambda: re.search(r"SLURM job .*\(Dependency\)", lab.sweep("--status").stdout))

    until(lambda: lab.trace("start"))
    watching = lab.start("--executor", "slurm")
    until(lambda: _watches(watching))
    time.sleep(2)  # long enough to have looked at the queue
    watching.send_signal(signal.SIGINT)
    interrupted = lab.finish(watching)
    assert interrupted.returncode == 130, interrupted.stderr
    assert "goes on in SLURM (jobs " in interrupted.stderr and "--cancel" in interrupted.stderr
    assert queue("--name=smi-first"), "Ctrl-C ends the watching, not the jobs"

    again = lab.sweep()
    assert again.returncode == 0, again.stderr
    assert len(lab.trace("start")) == 4, "nothing was submitted twice"


def test_cancel_leaves_nothing_and_loses_nothing(lab: Lab):
    lab.write([1, 2, 3], [10], settings={"first": {"steps": 100, "seconds": 0.1}}, array_parallelism=2)
    assert lab.sweep("--detach").returncode == 0
    until(lambda: len(lab.trace("start")) == 2)
    cancelled = lab.finish(
        lab.start("--cancel")
    )  # without --executor: what is in SLURM is found all the same
    assert cancelled.returncode == 0, cancelled.stderr
    assert "6 tasks cancelled in SLURM" in cancelled.stdout
    until(lambda: not queue("--name=smi-first,smi-second"))
    saved = {entry["task"]: entry["step"] for entry in lab.trace("saved")}
    assert len(saved) == 2, "what ran saved its state first"
    assert "nothing of this grid" in lab.finish(lab.start("--cancel")).stdout

    lab.sweep("--only", "second 10 of first 1")
    starts = [entry["step"] for entry in lab.trace("start") if entry["task"] == "first 1"]
    assert starts == [0, saved["first 1"]]


def test_variables_of_an_enclosing_job_do_not_leak(lab: Lab):
    lab.write([1], [10], settings={})
    inside = {
        "SLURM_JOB_ID": "1",
        "SLURM_ARRAY_JOB_ID": "1",
        "SLURM_ARRAY_TASK_ID": "7",
        "SLURM_MEM_PER_CPU": "9",
    }
    answer = lab.sweep(**inside, SLURM_NTASKS="8", SLURM_STEP_NODELIST="elsewhere", SLURM_PROCID="3")
    assert answer.returncode == 0, answer.stderr
    (record,) = lab.records("first")
    assert record["slurm_job_id"] not in ("1", "1_7") and "_" not in record["slurm_job_id"]


def _watches(process: subprocess.Popen[str]) -> bool:
    """A sweep that has installed its signal handlers (a bit of its mask of caught signals)."""
    with open(f"/proc/{process.pid}/status", encoding="utf-8") as file:
        caught = next(line.split()[1] for line in file if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGUSR2 - 1) & 1)


def test_the_real_tasks_give_the_same_figures_as_in_series(lab: Lab):
    grid = ROOT / "experiments" / "smoke.yaml"
    answer = lab.sweep(code=PAPER, grid=grid, seconds=300)
    assert answer.returncode == 0, answer.stderr
    other = lab.beside("serial")
    serial = other.finish(other.start("--executor", "serial", code=PAPER, grid=grid), seconds=300)
    assert serial.returncode == 0, serial.stderr
    kinds = ("teacher", "images", "evaluate", "quantize", "background", "transfer")
    ours, theirs = ({kind: figures(one, kind) for kind in kinds} for one in (lab, other))
    assert all(ours.values()) and ours == theirs
    assert lab.records("cost"), "which measures times alone"
    assert lab.images() and lab.images() == other.images(), "the same images, bit for bit"


def figures(lab: Lab, kind: str) -> list[dict[str, object]]:
    """A kind's metrics but for times."""
    timeless = []
    for record in lab.records(kind):
        timeless.append({name: value for name, value in record["metrics"].items() if not timed(name)})
    return timeless


def timed(name: str) -> bool:
    return any(word in name for word in ("second", "stages", "history", "speed"))

"""What a cluster does to jobs: time-outs, preemption, requeues, dead nodes and processes, cancelled tasks.

Each ends in the value that a run which was never stopped finds, and where a notice came, goes on from the very step.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import yaml_text
from cluster import CPUS, Cluster
from counting import SAVE_STEPS, expected
from lab import PAPER, ROOT, Lab, until

from bench.engine.store import Store

LONG = {"first": {"steps": 100, "seconds": 0.1}}


def values(lab: Lab) -> dict[str, str]:
    return {record["label"]: record["metrics"]["value"] for record in lab.records("first")}


def steps(lab: Lab, what: str, task: str = "first 1") -> list[int]:
    return [entry["step"] for entry in lab.trace(what) if entry["task"] == task]


def scontrol(*words: str) -> None:
    subprocess.run(["scontrol", *words], check=True, capture_output=True)


def job_of(lab: Lab, task: str = "first 1") -> str:
    return next(entry["job"] for entry in lab.trace("start") if entry["task"] == task)


def test_a_time_out_of_a_kind_without_state_is_its_failure(lab: Lab):
    lab.write([1], [10], settings={"first": {"steps": 400, "seconds": 0.5}}, minutes=1)
    answer = lab.sweep(seconds=240, COUNTING_STATELESS="first")
    assert answer.returncode == 1, answer.stderr
    (record,) = lab.records("first")
    assert record["error"]["cause"] == "needs more minutes" and "it had 1 and" in record["error"]["message"]
    assert [attempt["ended"] for attempt in record["earlier_attempts"]] == ["timed out"]
    assert len(lab.trace("start")) == 1, "another job would end the same way"


def test_a_time_out_saves_and_goes_on(lab: Lab):
    lab.write([1], [10], settings={"first": {"steps": 100, "seconds": 0.5}}, minutes=1)
    answer = lab.sweep(seconds=240)
    assert answer.returncode == 0, answer.stderr
    (record,) = lab.records("first")
    assert record["slurm"]["restarts"] >= 1, "the time limit is shorter than the task"
    assert steps(lab, "start") == [0, *steps(lab, "saved")], (
        "it goes on from the step at which it was told to stop"
    )
    assert values(lab) == {"first 1": expected(1, 100)}


def test_preempted_by_a_higher_partition(lab: Lab, cluster: Cluster):
    lab.write([1, 2], [10], settings=LONG, cpus=CPUS)
    sweep = lab.start("--executor", "slurm")
    until(lambda: min(max(steps_now(lab, task), default=0) for task in ("first 1", "first 2")) > 1)
    wanted = ["--partition=urgent", f"--cpus-per-task={CPUS}", "--output=/dev/null", "--wrap=sleep 3"]
    subprocess.run(["sbatch", *wanted], check=True, capture_output=True)
    answer = lab.finish(sweep)
    assert answer.returncode == 0, answer.stderr
    saved = lab.trace("saved")
    assert len(saved) == 1, "one of the two had to make room"
    hit = saved[0]["task"]
    assert steps(lab, "start", hit) == [0, saved[0]["step"]]
    assert values(lab) == {"first 1": expected(1, 100), "first 2": expected(2, 100)}


def steps_now(lab: Lab, task: str) -> list[int]:
    """The steps of a task's saved state so far."""
    found = []
    for path in (lab.store / "checkpoints").glob("first-*/state"):
        name = json.loads((lab.store / "tasks" / f"{path.parent.name}.json").read_text())["label"]
        if name == task:
            found.append(json.loads(path.read_text())["step"])
    return found


def test_requeued_from_outside(lab: Lab):
    lab.write([1], [10], settings=LONG)
    sweep = lab.start("--executor", "slurm")
    until(lambda: steps_now(lab, "first 1"))
    scontrol("requeue", job_of(lab))
    answer = lab.finish(sweep)
    assert answer.returncode == 0, answer.stderr
    assert steps(lab, "start") == [0, *steps(lab, "saved")] and len(steps(lab, "saved")) == 1
    assert values(lab) == {"first 1": expected(1, 100)}
    assert lab.records("first")[0]["slurm"]["restarts"] == 1


def test_a_notice_by_sigterm_alone(lab: Lab):
    """What a preemption with a grace time sends on sites that do not send the job's own signal."""
    lab.write([1], [10], settings=LONG)
    sweep = lab.start("--executor", "slurm")
    until(lambda: steps_now(lab, "first 1"))
    subprocess.run(["scancel", "--signal=TERM", job_of(lab)], check=True)
    answer = lab.finish(sweep)
    assert answer.returncode == 0, answer.stderr
    assert steps(lab, "start") == [0, *steps(lab, "saved")] and len(steps(lab, "saved")) == 1
    assert values(lab) == {"first 1": expected(1, 100)}
    assert lab.records("first")[0]["slurm"]["restarts"] == 1, "the job asked for its own requeue"


def test_a_node_that_fails(lab: Lab, cluster: Cluster):
    lab.write([1], [10], settings=LONG)
    sweep = lab.start("--executor", "slurm")
    until(lambda: steps_now(lab, "first 1"))
    node = lab.trace("start")[0]["SLURMD_NODENAME"]
    try:
        scontrol("update", f"nodename={node}", "state=down", "reason=test")
        answer = lab.finish(sweep)
    finally:
        cluster.run(
            "scontrol", "update", f"nodename={node}", "state=resume", check=False
        )  # it may have come back
    assert answer.returncode == 0, answer.stderr
    starts = [entry for entry in lab.trace("start") if entry["task"] == "first 1"]
    assert len(starts) == 2 and starts[1]["SLURMD_NODENAME"] != node
    assert starts[1]["step"] >= SAVE_STEPS, "from the last saved state, not from the beginning"
    assert values(lab) == {"first 1": expected(1, 100)}


def test_a_killed_process_is_replaced_within_its_job(lab: Lab):
    lab.write([1], [10], settings={"first": {"steps": 20, "seconds": 0.05, "die": [12]}})
    answer = lab.sweep()
    assert answer.returncode == 0, answer.stderr
    assert steps(lab, "start") == [0, 10]
    assert len({entry["job"] for entry in lab.trace("start") if entry["task"] == "first 1"}) == 1
    assert values(lab) == {"first 1": expected(1, 20)}


def test_a_task_that_kills_every_process_is_a_failure(lab: Lab):
    lab.write([1], [10], settings={"first": {"steps": 20, "seconds": 0.05, "die": [2, 3, 4]}})
    answer = lab.sweep()
    assert answer.returncode == 1
    assert "worker died" in answer.stderr and "SIGKILL" in answer.stderr
    assert "blocked by first 1" in answer.stderr
    again = lab.sweep("--retry-failed")
    assert again.returncode == 0, again.stderr


def test_a_killed_job_is_submitted_again(lab: Lab, cluster: Cluster):
    lab.write([1], [10], settings=LONG)
    sweep = lab.start("--executor", "slurm")
    until(lambda: steps_now(lab, "first 1"))
    task_process = lab.trace("start")[0]["pid"]
    parent = int(Path(f"/proc/{task_process}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)  # submitit's process: the job fails at once
    answer = lab.finish(sweep)
    assert answer.returncode == 0, answer.stderr
    first = [entry for entry in lab.trace("start") if entry["task"] == "first 1"]
    assert len(first) == 2 and first[0]["job"] != first[1]["job"]
    assert first[1]["step"] >= SAVE_STEPS
    assert values(lab) == {"first 1": expected(1, 100)}


def test_cancelled_tasks_of_an_array(lab: Lab):
    lab.write([1, 2, 3], [10], settings={"first": {"steps": 60, "seconds": 0.1}}, array_parallelism=1)
    sweep = lab.start("--executor", "slurm")
    until(lambda: steps_now(lab, "first 1"))
    listed = ["squeue", "-h", "--array", "--name=smi-first", "--format=%i"]
    jobs = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    array = jobs[0].split("_")[0]
    # One that runs and one that waits; the latter vanishes from the queue and the accounting without a trace.
    subprocess.run(["scancel", f"{array}_0", f"{array}_2"], check=True)
    answer = lab.finish(sweep)
    assert answer.returncode == 1, answer.stderr
    assert "4 tasks left undone" in answer.stderr
    assert values(lab) == {"first 2": expected(2, 60)}

    again = lab.sweep()
    assert again.returncode == 0, again.stderr
    assert values(lab) == {f"first {seed}": expected(seed, 60) for seed in (1, 2, 3)}
    assert steps(lab, "start", "first 1") == [0, *steps(lab, "saved", "first 1")]


def test_an_inversion_told_to_stop_ends_in_the_same_bits(lab: Lab):
    """The real thing: SLURM's notice in the middle of an inversion, and the images of a run that was never stopped."""
    grid = yaml_text.read(ROOT / "experiments" / "smoke.yaml")
    for scale in grid["scales"].values():
        # long enough for heartbeats, one in 20 seconds, to show it under way
        scale["settings"]["recipes"]["deepinversion"]["iterations"] = 6000
        scale["settings"]["schedules"]["short"]["at"] = [1000, 3000]
    path = lab.folder / "smoke.yaml"
    path.write_text(yaml_text.dump(grid))
    sweep = lab.start("--executor", "slurm", "--only", "images*", code=PAPER, grid=path)
    claims = Store(lab.store).claims

    def well_under_way() -> str | None:
        held = {name: holder for name, holder in claims.held().items() if name.startswith("images-")}
        for name, holder in held.items():
            if claims.progress(name, holder).get("done", 0) >= 50:
                return holder.slurm_job_id
        return None

    subprocess.run(["scancel", "--signal=USR2", until(well_under_way, 240)], check=True)
    answer = lab.finish(sweep, 300)
    assert answer.returncode == 0, answer.stderr
    (record,) = lab.records("images")
    assert record["slurm"]["restarts"] == 1

    other = lab.beside("serial")
    serial = other.finish(
        other.start("--executor", "serial", "--only", "images*", code=PAPER, grid=path), 300
    )
    assert serial.returncode == 0, serial.stderr
    assert lab.images() and lab.images() == other.images()

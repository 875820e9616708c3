"""A SLURM that refuses, or does not answer: one clear line, exit code 2, nothing lost."""

from __future__ import annotations

import subprocess

from cluster import Cluster
from lab import Lab, until


def test_a_bad_partition(lab: Lab):
    lab.write([1, 2], [10], partition="nowhere")
    answer = lab.sweep()
    assert answer.returncode == 2
    (line,) = answer.stderr.strip().splitlines()
    assert "invalid partition" in line and "partition: nowhere" in line and "first" in line
    assert not (lab.store / "records").exists() or not lab.records("first")
    queue = subprocess.run(
        ["squeue", "-h", "--name=smi-first,smi-second"], capture_output=True, text=True, check=True
    )
    assert not queue.stdout


def test_no_slurm_where_it_is_asked_for(lab: Lab):
    lab.write([1], [10])
    answer = lab.sweep(SLURM_CONF=str(lab.folder / "nothing.conf"))
    assert answer.returncode == 2
    (line,) = answer.stderr.strip().splitlines()
    assert line.startswith("error: --executor slurm: SLURM does not answer")


def test_the_controller_stops_and_comes_back(lab: Lab, cluster: Cluster):
    lab.write([1], [10], settings={"first": {"steps": 60, "seconds": 0.1}})
    sweep = lab.start("--executor", "slurm")
    until(lambda: lab.trace("start"))
    try:
        cluster.daemons.end("slurmctld")
        refused = lab.sweep()
        assert refused.returncode == 2
        (line,) = refused.stderr.strip().splitlines()
        assert line.startswith("error: --executor slurm: SLURM does not answer (scontrol ping:")
        until(lambda: any(entry["task"] == "first 1" for entry in lab.trace("end")))
    finally:
        cluster.start_controller()
    answer = lab.finish(sweep)
    assert answer.returncode == 0, answer.stderr
    assert len(lab.trace("start")) == 2, "jobs go on without a controller; none was started twice"

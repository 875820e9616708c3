"""The smoke grid runs every kind of task there is, on this machine; tests/slurm runs it on SLURM."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.engine.store import Store
from bench.sweep import main
from bench.tasks import KINDS

GRID = Path(__file__).parents[2] / "experiments" / "smoke.yaml"


@pytest.mark.slow
def test_every_kind_of_task_runs(tmp_path, capsys):
    store, results = tmp_path / "runs", tmp_path / "results"
    command = ["--grid", str(GRID), "--store", str(store), "--results", str(results), "--executor", "serial"]
    assert main([*command, "--device", "cpu"]) == 0
    ran = {kind: list(Store(store).records(kind)) for kind in KINDS}
    assert all(ran.values()), f"a kind of task that experiments/smoke.yaml does not run: {ran.keys()}"
    assert all(record["status"] == "done" for records in ran.values() for record in records)
    table = (results / "digits" / "smoke.md").read_text()
    assert table.count("| done ") == sum(map(len, ran.values())) and "not run" not in table
    capsys.readouterr()
    assert main([*command, "--scale", "gpu", "--dry-run"]) == 0, "the same tasks, in jobs with a GPU"
    assert "to do" in capsys.readouterr().out

"""Running the toy suite's command line in processes of its own, and looking at what they leave."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import toy_suite

from bench.engine.plan import Plan, make_plan
from bench.engine.store import Store
from bench.engine.task import Sources
from bench.grid import load

SCRIPT = toy_suite.__file__
SMALL = toy_suite.GRID.replace("milliseconds: 20", "milliseconds: 8").replace("seed: [0, 1]", "seed: [0]", 1)


class Toy:
    """One folder with a grid, a store and results."""

    def __init__(self, folder: Path, grid: str = SMALL) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        (folder / "toy.yaml").write_text(grid)
        self.store = Store(folder / "runs")
        self.table = folder / "results" / "digits" / "toy.md"

    def start(self, *options: str, **more) -> subprocess.Popen:
        command = [sys.executable, SCRIPT, "--grid", "toy.yaml", *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.folder, **{**pipes, "start_new_session": True, **more})

    def run(self, *options: str) -> tuple[int, str, str]:
        process = self.start(*options)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    @property
    def plan(self) -> Plan:
        return make_plan(toy_suite.build(load(self.folder / "toy.yaml"), "digits", Sources()))

    def done(self) -> dict[str, bytes]:
        """The bytes of every finished task's record; fails if any record or artifact there is damaged."""
        found = {}
        for task in self.plan.tasks:
            finding = self.store.find(task, thorough=True)
            assert finding.status in ("done", "missing"), finding.damage
            if finding.status == "done":
                found[task.name] = self.store.record_path(task).read_bytes()
        return found

    def times_finished(self) -> dict[str, int]:
        """How often each task's log says that it came to its end."""
        logs = {task.name: self.store.log_path(task) for task in self.plan.tasks}
        return {name: log.read_text().count(" done in ") if log.exists() else 0 for name, log in logs.items()}


def without_times(record: bytes) -> dict:
    """A record less what differs between two runs of the same task."""
    times = ("started", "finished", "seconds", "earlier_attempts", "digest", "commit", "dirty", "host")
    kept = {key: value for key, value in json.loads(record).items() if key not in times}
    kept["artifacts"] = {name: file["sha256"] for name, file in kept["artifacts"].items()}
    return kept

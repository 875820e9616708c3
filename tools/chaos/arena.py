"""Where the faults fall: a small disk with a store, the sweeps on it, and what can be seen of them from outside."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.engine.atomic import write_text
from bench.engine.store import Store

ROOT = Path(__file__).resolve().parents[2]
SUITE = ROOT / "tests" / "slurm"  # counting.py: tasks that count slowly, and say when they start and end
COUNTING = "import counting; counting.command_line()"
EXECUTORS = {"local": ("--executor", "local", "--jobs", "2"), "slurm": ("--executor", "slurm")}
DISK_MB = 16


class Arena:
    """A folder with a grid, a disk of its own (where mounting is allowed) and the sweeps that work on it."""

    def __init__(self, folder: Path, executor: str, environment: dict[str, str], mount: bool = True) -> None:
        self.folder, self.executor, self.disk = folder, executor, folder / "disk"
        self.store, self.trace = self.disk / "runs", folder / "trace"
        self.table = self.disk / "results" / "counting.md"
        self.said = folder / "output.txt"
        self.sweeps: list[subprocess.Popen[bytes]] = []
        self.disk.mkdir(parents=True)
        option = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=755", "tmpfs", str(self.disk)]
        self.mounted = mount and subprocess.run(option, capture_output=True).returncode == 0
        path = f"{SUITE}{os.pathsep}{ROOT}"
        self._environment = {**environment, "PYTHONPATH": path, "COUNTING_TRACE": str(self.trace)}
        self._environment |= {"OMP_NUM_THREADS": "1"}
        write_text(folder / "counting.yaml", json.dumps(grid()))  # JSON is YAML, too

    def command(self, *options: str) -> list[str]:
        command = [sys.executable, "-c", COUNTING, "--grid", str(self.folder / "counting.yaml"), "--quiet"]
        command += ["--device", "cpu", "--store", str(self.store), "--results", str(self.disk / "results")]
        return [*command, *options]

    def start(self) -> None:
        """Start one more sweep."""
        command = self.command(*EXECUTORS[self.executor], "--retry-failed")
        with open(self.said, "ab") as said:
            process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=said, stderr=said)
        self.sweeps.append(process)

    def run(self, *options: str) -> int:
        """Run a sweep that nothing disturbs; its exit code."""
        with open(self.said, "ab") as said:
            command = self.command(*options)
            return subprocess.run(
                command, cwd=ROOT, env=self._environment, stdout=said, stderr=said
            ).returncode

    def running(self) -> list[subprocess.Popen[bytes]]:
        return [process for process in self.sweeps if process.poll() is None]

    def verify(self) -> bool:
        """Whether `python -m bench store verify` finds every record and artifact whole."""
        command = [sys.executable, "-m", "bench", "store", "verify", "--store", str(self.store)]
        with open(self.said, "ab") as said:
            return subprocess.run(command, cwd=ROOT, stdout=said, stderr=said).returncode == 0

    def done(self) -> dict[str, bytes]:
        """The bytes of the records of tasks that are done, by name."""
        found = {}
        for path in self.store.glob("records/*/*.json"):
            with contextlib.suppress(FileNotFoundError):
                data = path.read_bytes()
                if json.loads(data)["status"] == "done":
                    found[path.stem] = data
        return found

    def workers(self) -> list[int]:
        """Processes that run a task of this store now."""
        return [holder.pid for holder in Store(self.store).claims.held().values()]

    def entries(self) -> list[dict[str, Any]]:
        """What the tasks said of their starts and ends, in the order of time."""
        lines = self.trace.read_text().splitlines() if self.trace.exists() else []
        return sorted(map(json.loads, lines), key=lambda entry: entry["time"])

    def close(self) -> None:
        for process in self.running():
            process.kill()
            process.wait()
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.disk)], check=True)


def grid() -> dict[str, Any]:
    """20 tasks, four of which the others need; each takes a second or two, and saves its state on the way."""
    small = {"memory_gb": 0.2, "minutes": 20}
    scale = {
        "axes": {"first": [1, 2, 3, 4], "second": [10, 20, 30, 40]},
        "settings": {"first": {"steps": 30, "seconds": 0.05}, "second": {"steps": 20, "seconds": 0.05}},
        "resources": {"first": small, "second": small},
    }
    return {"name": "counting", "title": "Counting", "experiment": "counting", "scales": {"digits": scale}}


def at_once(entries: list[dict[str, Any]]) -> int:
    """How often a task began in one process while another one was still to say that it came to the end of it."""
    spans: dict[str, dict[int, tuple[float, float]]] = {}
    for entry in entries:
        of_task = spans.setdefault(entry["task"], {})
        first, _ = of_task.get(entry["pid"], (entry["time"], 0.0))
        of_task[entry["pid"]] = (first, entry["time"])
    return sum(
        mine[0] < other[0] < mine[1]
        for of_task in spans.values()
        for pid, mine in of_task.items()
        for another, other in of_task.items()
        if pid != another
    )


def scratch() -> Path:
    """A new folder that others may look into, as SLURM's daemons want it."""
    folder = Path(tempfile.mkdtemp(prefix="smi-chaos-"))
    folder.chmod(0o755)
    return folder

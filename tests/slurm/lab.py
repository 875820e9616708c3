"""A folder with a grid and a store, and the sweep's command line on them; and waiting for things."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.numpy
import yaml_text
from counting import TRACE, read_trace

from bench.engine.store import Store

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
COUNTING = "import counting; counting.command_line()"
PAPER = "import sys; from bench.sweep import main; sys.exit(main())"


class Lab:
    """A folder with a grid and a store, and the sweep's command line on them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store, self.trace_file = folder, folder / "runs", folder / "trace"
        self.grid = folder / "counting.yaml"
        self.started: list[subprocess.Popen[str]] = []

    def write(
        self, first: list[int], second: list[int], *, settings: dict[str, Any] | None = None, **resources: Any
    ) -> None:
        """A grid of the counting suite. resources: of the kind `first`; both kinds default to little of everything."""
        small = {"memory_gb": 0.2, "minutes": 20}
        scale = {
            "axes": {"first": first, "second": second},
            "settings": settings or {},
            "resources": {"first": {**small, **resources}, "second": small},
        }
        grid = {
            "name": "counting",
            "title": "Counting",
            "experiment": "counting",
            "scales": {"digits": scale},
        }
        self.grid.write_text(yaml_text.dump(grid))

    def start(self, *options: str, code: str = COUNTING, grid: Path | None = None, **environment: str) -> Any:
        """Start a sweep; it is ended with the test. `executor` and so on as on the command line."""
        command = [sys.executable, "-c", code, "--grid", str(grid or self.grid), "--device", "cpu"]
        command += ["--store", str(self.store), "--results", str(self.folder / "results"), *options]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={
                **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
                "PYTHONPATH": f"{FOLDER}{os.pathsep}{ROOT}",
                "OMP_NUM_THREADS": "1",
                TRACE: str(self.trace_file),
                **environment,
            },
        )
        self.started.append(process)
        return process

    def sweep(self, *options: str, seconds: float = 120, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a sweep on SLURM to its end."""
        process = self.start("--executor", "slurm", *options, **more)
        return self.finish(process, seconds)

    def finish(self, process: Any, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        out, err = process.communicate(timeout=seconds)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def beside(self, name: str) -> Lab:
        """A lab with a store of its own, that ends with this one."""
        lab = Lab(self.folder / name)
        lab.folder.mkdir()
        lab.started = self.started
        return lab

    def serial(self) -> str:
        """The table of the same grid, made in one process of this machine in a store of its own."""
        lab = self.beside("serial")
        answer = lab.finish(lab.start("--executor", "serial", "--quiet", grid=self.grid))
        assert answer.returncode == 0, answer.stderr
        return lab.table()

    def table(self) -> str:
        return (self.folder / "results" / "counting.md").read_text()

    def trace(self, what: str | None = None) -> list[dict[str, Any]]:
        return [entry for entry in read_trace(self.trace_file) if what in (None, entry["what"])]

    def records(self, kind: str) -> list[dict[str, Any]]:
        return list(Store(self.store).records(kind))

    def images(self) -> dict[str, dict[str, bytes]]:
        """The bits of every inverted set, by file."""
        found = {}
        for path in sorted(self.store.glob("artifacts/*/images-*/*.safetensors")):
            tensors = safetensors.numpy.load_file(path)
            found[f"{path.parent.name}/{path.name}"] = {
                name: value.tobytes() for name, value in tensors.items()
            }
        return found

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.communicate()


def until(done: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until something is true and return it."""
    deadline = time.monotonic() + seconds
    while True:
        value = done()
        if value:
            return value
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)

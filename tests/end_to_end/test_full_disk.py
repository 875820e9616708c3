"""A disk that fills up or turns read-only at any write: one clear line, nothing damaged, and it goes on after."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import toy_suite

from bench.sweep import main

ONE_CELL = (
    toy_suite.GRID.replace("model: [m0, m1]", "model: [m0]")
    .replace("method: [plain, other]", "method: [plain]")
    .replace("bits: [W4/A8, W8/A8]", "bits: [W8/A8]")
    .replace("seed: [0, 1]}\n    settings", "seed: [0]}\n    settings")
    .replace("milliseconds: 20", "milliseconds: 0")
)


class Disk:
    """Counts what changes the disk below a folder, and refuses from the `fail_at`-th time on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, code: int) -> None:
        self.count, self.fail_at, self.code, self.folder = 0, None, code, str(folder)
        for name in ("replace", "link", "mkdir", "rename"):
            monkeypatch.setattr(os, name, self._guarded(getattr(os, name), 0))
        monkeypatch.setattr(
            os, "fsync", lambda descriptor: None
        )  # no power cut here: need not wait for the disk
        self._open, self._write = os.open, os.write
        monkeypatch.setattr(os, "open", self._guarded_open)
        monkeypatch.setattr(os, "write", self._guarded_write)
        self._ours: set[int] = set()

    def _step(self) -> None:
        self.count += 1
        if self.fail_at is not None and self.count >= self.fail_at:
            raise OSError(self.code, os.strerror(self.code))

    def _guarded(self, real: Callable, position: int) -> Callable:
        def guarded(*arguments, **more):
            if str(arguments[position]).startswith(self.folder):
                self._step()
            return real(*arguments, **more)

        return guarded

    def _guarded_open(self, path, flags, *more, **named):
        ours = str(path).startswith(self.folder)
        if ours and flags & os.O_CREAT:
            self._step()
        descriptor = self._open(path, flags, *more, **named)
        (self._ours.add if ours else self._ours.discard)(descriptor)
        return descriptor

    def _guarded_write(self, descriptor: int, data) -> int:
        if descriptor in self._ours:
            self._step()
            half = max(1, len(data) // 2)  # a disk takes part of a write before it is full
            return self._write(descriptor, data[:half])
        return self._write(descriptor, data)


@pytest.fixture
def sweep(tmp_path, capsys):
    grid = tmp_path / "toy.yaml"
    grid.write_text(ONE_CELL)

    def sweep(store: str) -> tuple[int, str]:
        folders = ["--store", str(tmp_path / store), "--results", str(tmp_path / store / "results")]
        code = main(["--grid", str(grid), *folders, "--executor", "serial"], toy_suite.SUITE)
        return code, capsys.readouterr().err

    return sweep


@pytest.mark.parametrize(("code", "stride"), [(errno.ENOSPC, 1), (errno.EROFS, 9)], ids=["full", "read-only"])
def test_every_write_may_be_the_one_that_fails(sweep, tmp_path, monkeypatch, code, stride):
    assert sweep("reference") == (0, "")
    table = (tmp_path / "reference" / "results" / "digits" / "toy.md").read_bytes()

    disk = Disk(monkeypatch, tmp_path, code)
    refused = 0
    for step in itertools.count(1, stride):
        store = f"store{step}"
        disk.count, disk.fail_at = 0, step
        result, error = sweep(store)
        if disk.count < step:
            assert (result, error) == (0, "")
            break
        refused += 1
        assert result == 2, f"write {step}: {error}"
        assert error.startswith("error: ") and error.count("\n") == 1
        assert "cannot be written" in error and os.strerror(code) in error
        disk.fail_at = None
        assert sweep(store) == (0, ""), f"after write {step}"
        assert (tmp_path / store / "results" / "digits" / "toy.md").read_bytes() == table
    assert refused > 60 // stride


def test_a_disk_that_fills_up_keeps_what_was_finished(sweep, tmp_path, monkeypatch):
    disk = Disk(monkeypatch, tmp_path, errno.ENOSPC)
    disk.fail_at = 10**9
    sweep("whole")
    disk.fail_at, disk.count = disk.count * 3 // 4, 0
    assert sweep("filling")[0] == 2
    records = {path: path.read_bytes() for path in (tmp_path / "filling" / "records").rglob("*.json")}
    assert records
    disk.fail_at = None
    assert sweep("filling")[0] == 0
    assert all(path.read_bytes() == record for path, record in records.items())

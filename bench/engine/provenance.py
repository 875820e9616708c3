"""Where a result comes from: code, versions, machine. Written into every record and into the tables' footers."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CODE = ("bench", "smi", "pyproject.toml")  # what decides results; grids are in the keys, results/ is output
PACKAGES = ("torch", "timm", "torchvision", "numpy", "scikit-learn", "safetensors")


@lru_cache(maxsize=1)
def code_state() -> dict[str, str | None]:
    """{"commit": hash | None outside git, "dirty": None, or a hash of the uncommitted changes to the code}."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    changes = _git("diff", "HEAD", "--", *CODE) or ""
    for name in (_git("ls-files", "--others", "--exclude-standard", "--", *CODE) or "").splitlines():
        try:
            changes += name + hashlib.sha256((ROOT / name).read_bytes()).hexdigest()
        except OSError:
            continue
    return {"commit": commit, "dirty": hashlib.sha256(changes.encode()).hexdigest()[:12] if changes else None}


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Python's version and those of the packages that decide results; packages not installed are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def device_name(device: str) -> str:
    """The model name of the processor or GPU behind a torch device string. Does not import torch."""
    torch = sys.modules.get("torch")
    if device.startswith("cuda") and torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name(device))
    return cpu_name()


@lru_cache(maxsize=1)
def cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cpu_count() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def origin(device: str) -> dict[str, Any]:
    """The part of a record that says where it was made."""
    return {
        **code_state(),
        "versions": versions(),
        "device": device_name(device),
        "device_type": "gpu" if device.startswith("cuda") else "cpu",
        "host": platform.node(),
        "cpus": cpu_count(),
    }


def _git(*arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(ROOT), *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None

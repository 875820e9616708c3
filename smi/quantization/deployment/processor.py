"""What integer instructions this machine's processor has, and whether sums are lost without them."""

from __future__ import annotations

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def saturates(weight_bits: int = 8) -> bool:
    """Whether uint8 times int8 kernels lose sums on this machine: x86 without VNNI, weights of 8 bits."""
    if weight_bits < 8 or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return not instructions() & {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"}


def instructions() -> set[str]:
    """The CPU's flags, as Linux names them; empty where it does not tell."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())

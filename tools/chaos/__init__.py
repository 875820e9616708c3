"""Sweeps under random faults: kills, a full disk, a read-only store, wrong clocks, a deaf SLURM (nox -s chaos)."""

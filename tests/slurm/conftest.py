"""A SLURM to test on: the user's own where SLURM_CONF names one, else a cluster of two made-up nodes started here.

Never skipped for want of SLURM: whoever asks for these tests is told what to install. On a user's own cluster the
tests that need to break it (nodes, controller, partitions) are left out, by name.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))  # jobs, too, import these modules by name

from cluster import INSTALL, Cluster, missing_programs  # noqa: E402
from lab import ROOT, Lab  # noqa: E402

SCRATCH = (
    Path("/tmp") / f"smi-slurm-{os.getuid()}"
)  # short, and open to others, as sockets and munged want it


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Starting a cluster is nothing for a plain `pytest`: only `-m slurm`, or this folder by name, collects it."""
    named = any("slurm" in str(argument) for argument in config.args)
    return None if named or "slurm" in (config.option.markexpr or "") else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in Path(item.path).parents:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster | None]:
    """The cluster started for these tests; None on a user's own."""
    if os.environ.get("SLURM_CONF"):
        yield None
        return
    missing = missing_programs()
    if missing:
        pytest.fail(
            f"no SLURM to test on: SLURM_CONF names no cluster, and to start one here {', '.join(missing)} "
            f"must be installed (as root: {INSTALL})",
            pytrace=False,
        )
    stop_abandoned()
    cluster = Cluster(SCRATCH / str(os.getpid()) / "cluster")
    try:
        cluster.start()
        os.environ["SLURM_CONF"] = str(cluster.conf)
        yield cluster
    finally:
        os.environ.pop("SLURM_CONF", None)
        cluster.stop()


def stop_abandoned() -> None:
    """Stop the clusters of test runs that were killed, and remove their folders."""
    for folder in SCRATCH.glob("[0-9]*"):
        if not Path(f"/proc/{folder.name}").exists():
            Cluster(folder / "cluster").stop()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(slurm: Cluster | None) -> Cluster:
    """A cluster that a test may break, whole again: all nodes idle."""
    if slurm is None:
        pytest.skip("would break the cluster that SLURM_CONF names")
    slurm.run("scancel", "--user", str(os.getuid()), check=False)
    slurm.wait_idle()
    return slurm


@pytest.fixture
def lab(slurm: Cluster | None) -> Iterator[Lab]:
    # Not tmp_path: nodes must be able to see it, and on a user's cluster /tmp is each machine's own.
    base = SCRATCH if slurm is not None else ROOT / "runs" / "slurm_tests"
    folder = base / str(os.getpid()) / f"lab-{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    lab = Lab(folder)
    yield lab
    lab.close()

"""Who may import whom ([tool.importlinter] in pyproject.toml): each rule is broken by an import planted against it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import networkx
import pytest

ROOT = Path(__file__).resolve().parents[2]
PLANTS = {  # rule -> (the file that the import is planted in, the import)
    "smi never imports bench": ("smi/flops.py", "import bench.text"),
    "The engine knows no experiment, page, command, model or data set": (
        "bench/engine/plan.py",
        "from bench.publish import parts",
    ),
    "Tasks, models, data sets, engine, grids: each imports later ones": (
        "bench/datasets/places.py",
        "import bench.models.weights",
    ),
    "The engine imports no torch": ("bench/engine/atomic.py", "import torch"),
    "An experiment's folder imports no other's": (
        "bench/experiments/gallery/plan.py",
        "from bench.experiments.cost import plan as other",
    ),
    "What publishes knows no experiment by name": (
        "bench/publish/index.py",
        "import bench.experiments.quantization.table",
    ),
    "smi has no circle of imports": ("smi/state.py", "import smi.loop"),
}


def broken_rules(root: Path) -> set[str]:
    """Names of the rules that the tree breaks."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    ends = [line.split(" BROKEN")[0] for line in done.stdout.splitlines() if " BROKEN" in line]
    kept = [line for line in done.stdout.splitlines() if " KEPT" in line]
    assert len(ends) + len(kept) == len(PLANTS), done.stdout + done.stderr
    assert done.returncode == bool(ends)
    return set(ends)


def test_the_tree_keeps_every_rule():
    assert broken_rules(ROOT) == set()


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A copy of the code with all imports planted at once."""
    root = tmp_path_factory.mktemp("planted")
    for package in ("smi", "bench"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    for file, line in PLANTS.values():
        with (root / file).open("a", encoding="utf-8") as code:
            code.write(f"\n\ndef _planted() -> None:\n    {line}\n")
    return broken_rules(root)


@pytest.mark.parametrize("rule", PLANTS)
def test_a_planted_import_breaks_its_rule(planted, rule):
    assert rule in planted


@pytest.mark.parametrize("package", ["smi", "bench"])
def test_no_module_imports_itself_by_way_of_others(package):
    """Inside functions too; of single modules, since bench's packages may lean on each other's roots."""
    graph = grimp.build_graph(package, cache_dir=None, exclude_type_checking_imports=True)
    arrows = networkx.DiGraph(
        (module, other)
        for module in graph.modules
        for other in graph.find_modules_directly_imported_by(module)
    )
    assert [circle for circle in networkx.strongly_connected_components(arrows) if len(circle) > 1] == []

"""A results folder made by the real commands in a minute: grids of experiments/ at the digits scale, cut short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml_text

from bench import sweep
from bench.engine.provenance import ROOT

ITERATIONS, STOPS = 20, [4, 8, 12, 16]
METHODS = {
    "table3": ["original", "deepinversion_dense", "deepinversion_sparse", "psaq_dense"],
    "ablation_sparsity": ["deepinversion_dense", "sparse_20", "random_20"],
    "ablation_iterations": ["deepinversion_dense", "deepinversion_sparse"],
    "figures": ["real", "deepinversion_dense", "deepinversion_sparse"],
}


def read(name: str) -> dict[str, Any]:
    """A grid of experiments/ as it stands."""
    return yaml_text.read(ROOT / "experiments" / f"{name}.yaml")


def shortened(name: str) -> dict[str, Any]:
    """A grid of experiments/, digits alone: few methods, seeds, images and iterations, a teacher of one epoch."""
    grid = read(name)
    scale = grid["scales"]["digits"]
    axes, settings = scale["axes"], scale["settings"]
    axes["method"] = METHODS[name]
    axes["seed"] = axes["seed"][:2]
    settings["teacher"] = {"epochs": 1}
    settings["images"]["count"] = 8
    recipes = settings["recipes"]
    recipes["deepinversion"]["iterations"] = ITERATIONS
    if "psaq" in recipes:
        recipes["psaq"] |= {"iterations": ITERATIONS, "warmup": 2}
    for schedule in settings["schedules"].values():
        schedule["at"] = STOPS
    if "bits" in axes:
        axes["bits"] = ["W4/A8"]
    if "iterations" in axes:
        axes["iterations"] = [2, 6, ITERATIONS]
    if "targets" in settings:
        settings |= {"targets": [0, 1, 2, 3], "snapshots": [10]}
    return grid


def make(folder: Path, names: tuple[str, ...] = tuple(METHODS)) -> tuple[Path, Path]:
    """Run the shortened grids; (store, results) below `folder`."""
    store, results = folder / "runs", folder / "results"
    for name in names:
        path = folder / f"{name}.yaml"
        path.write_text(yaml_text.dump(shortened(name)), encoding="utf-8")
        options = ["--grid", path, "--store", store, "--results", results, "--executor", "serial", "--quiet"]
        assert sweep.main([str(option) for option in options]) == 0
    return store, results

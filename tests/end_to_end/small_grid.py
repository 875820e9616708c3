"""A grid of `experiments/` made small, run through the command line in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import yaml_text
from safetensors.torch import save_file

from bench.engine.store import Store
from bench.sweep import main

REPOSITORY = Path(__file__).parents[2]
TINY = "deit_tiny_patch16_224"


class SmallGrid:
    """A grid, changed by `change(scales)`, with its own store and results. Calling it runs it: the exit code."""

    def __init__(self, name: str, folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
        self.folder, self.results, self.options = folder, folder / "results", ()
        self.grid = folder / f"{name}.yaml"
        self.grid.write_bytes((REPOSITORY / "experiments" / f"{name}.yaml").read_bytes())
        self.change(change)

    def __call__(self, *more: str) -> int:
        places = ("--store", str(self.folder / "store"), "--results", str(self.results))
        options = (*places, "--device", "cpu", "--executor", "serial", *self.options, *more)
        return main(["--grid", str(self.grid), *options])

    def change(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Write the grid anew, its scales changed."""
        grid = yaml_text.read(self.grid)
        change(grid["scales"])
        self.grid.write_text(yaml_text.dump(grid), encoding="utf-8")

    def use_the_papers_scale(self, *data: str) -> None:
        """From now on, with these options for data and random weights of DeiT-Tiny on disk."""
        weights = self.folder / "weights"
        save_weights(weights / f"{TINY}.safetensors", seed=0)
        self.options = ("--scale", "paper", "--allow-cpu", *data, "--checkpoints", str(weights))

    def records(self, kind: str) -> list[dict[str, Any]]:
        paths = (self.folder / "store" / "records").rglob(f"{kind}-*.json")
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    def artifacts(self, record: dict[str, Any]) -> Path:
        return Store(self.folder / "store").artifacts_named(f"{record['kind']}-{record['key']}")

    def table(self, scale: str, name: str) -> str:
        return (self.results / scale / f"{name}.md").read_text(encoding="utf-8")


def save_weights(path: Path, seed: int, **options: Any) -> dict[str, torch.Tensor]:
    """Random weights of DeiT-Tiny in a file; the weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weights = timm.create_model(TINY, **options).state_dict()
    path.parent.mkdir(exist_ok=True)
    save_file(weights, path)
    return weights


def cut_off_the_network(monkeypatch) -> None:
    """Downloads of weights fail at once."""

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

"""Which kept plan a look may show: the last one, where nothing that it was made from has changed since.

What says so is read off the file system, not computed: sizes and times of the grid, of the code, of weights and modules
of one's own, and of the folders of data. A picture that changed deep inside a folder of data is not seen so; a sweep
and --dry-run plan anew whatever was kept.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.engine.plan import Plan
from bench.engine.store import Store, plans
from bench.engine.task import Sources
from bench.grid import Grid

CODE = Path(__file__).parents[1]  # bench; smi lies beside it
LIBRARIES = ("torch", "timm", "torchvision", "scikit-learn")
PLACES = ("SMI_DATA_CACHE", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE")  # where data and weights may lie, too


class KeptPlans:
    """The kept plan of a grid at one scale."""

    def __init__(
        self, grid: Grid, scale: str, store: Store, sources: Sources, build: Callable[..., Any]
    ) -> None:
        self._grid, self._scale, self._store, self._sources, self._build = grid, scale, store, sources, build
        self._name, self._is_kept = f"{grid.name}.{scale}", False

    def keep(self, plan: Plan) -> None:
        """Keep the plan, once, for later looks, unless a placeholder stands in it or the store cannot be written."""
        if self._sources.placeholders or self._is_kept:
            return
        with suppress(OSError):
            plans.keep(self._store, self._name, self._made_from, plan)
            self._is_kept = True

    def recall(self) -> Plan | None:
        return plans.recall(self._store, self._name, self._made_from)

    def seen(self, trusted: bool) -> plans.Seen:
        """What is known of the plan's records (bench.engine.store.plans)."""
        return plans.Seen(self._store, self._name, trusted)

    @cached_property
    def _made_from(self) -> dict[str, Any]:
        sources = self._sources
        folders = [*sources.data.values(), *sources.include, *sources.files]
        folders += [] if sources.checkpoints is None else [sources.checkpoints]
        builder = inspect.getsourcefile(self._build)
        return {
            "grid": Path(self._grid.path).read_text(encoding="utf-8"),
            "scale": self._scale,
            "data": {name: str(Path(folder).resolve()) for name, folder in sources.data.items()},
            "retrain": sources.retrain,
            "files": plans.evidence(*(Path(folder).resolve() for folder in folders)),
            "code": plans.sizes_of_code(CODE, CODE.with_name("smi")),
            "builder": plans.evidence(*([Path(builder)] if builder else [])),
            "libraries": [_version(name) for name in LIBRARIES],
            "python": sys.version,
            "places": [os.environ.get(name) for name in PLACES],
        }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None

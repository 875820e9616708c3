"""`python -m bench publish_weights`: take weights trained in a store into the project (bench.models.published)."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from bench.cli.arguments import Parser, exit_code, place
from bench.engine.store import Store
from bench.errors import BenchError
from bench.models import published


def publish(store: Store, name: str, task: str, folder: Path) -> Path:
    """Write the weights that a finished "teacher" task of a store holds; their path. BenchError if there is none."""
    found = store.find_named(task)
    if found.status != "done" or found.record is None or "training" not in found.record["settings"]:
        raise BenchError(f"{task}: no finished training of that name in {store.root}")
    record = found.record
    tutor = None
    if "tutor" in record["inputs"]:
        tutor = store.find_named(f"teacher-{record['inputs']['tutor']}").record
    settings, of_tutor = record["settings"], None if tutor is None else tutor["settings"]
    artifacts = store.artifacts_named(task)
    data = json.loads((artifacts / "model.json").read_text(encoding="utf-8"))["data"]
    told = {
        "recipe": published.recipe_of(settings, of_tutor, settings["train"].get("classes")),
        "pictures": settings["train"],
        "trained": _trained(record),
        **({} if tutor is None else {"tutor": _trained(tutor)}),
    }
    return published.write(folder, name, load_file(artifacts / "model.safetensors"), data, told)


def _trained(record: Mapping[str, Any]) -> dict[str, Any]:
    """How a training went, and where, from its record."""
    kept = ("metrics", "seconds", "finished", "device", "device_type", "versions", "commit")
    return {key: record[key] for key in kept if key in record}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = Parser("bench publish_weights", "Take weights trained in a store into the project.")
    parser.add_argument("--store", type=place, default=Path("runs"), help="where the models were trained")
    parser.add_argument(
        "--to", type=place, default=published.FOLDER, help="where the files go (default: the project's own)"
    )
    parser.add_argument(
        "weights", nargs="+", metavar="NAME=TASK", help="e.g. cifar_vit@0.cifar10=teacher-0123..."
    )
    options = parser.parse_args(arguments)
    for entry in options.weights:
        name, equals, task = entry.partition("=")
        if not equals:
            raise BenchError(f"{entry!r}: give NAME=TASK")
        print(publish(Store(options.store), name, task, options.to))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))

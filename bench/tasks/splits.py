"""Which splits of data sets a task reads, and opening them as it does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch.utils.data import Dataset

from bench import models
from bench.datasets import open_split
from bench.engine.task import Job, Task, canonical_json

WHOLE = ("train", "validation", "test")  # settings that name splits of which every picture is read


def split_of(job: Job, setting: str, data_config: Mapping[str, Any]) -> Dataset:
    """The split that the task's setting of that name names, for a model that takes pictures so."""
    return open_split(
        job.task.settings[setting],
        data_config,
        job.sources,
        few=setting not in WHOLE,
        progress=job.progress,
        should_stop=job.should_stop,
    )


def read_whole(tasks: Iterable[Task]) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]]]:
    """(named as by bench.datasets.fingerprint, data config) of each split that some task reads whole, each once."""
    configs: dict[str, dict[str, Any]] = {}
    seen = set()
    for task in tasks:
        model = (task if task.kind == "teacher" else task.inputs.get("teacher", task)).settings.get("model")
        for setting in WHOLE if model is not None else ():
            named = task.settings.get(setting)
            if not isinstance(named, Mapping) or "content" not in named:
                continue
            described = canonical_json(model)
            if described not in configs:
                configs[described] = _data_config(model)
            identity = canonical_json([dict(named), configs[described]])
            if identity not in seen:
                seen.add(identity)
                yield named, configs[described]


def _data_config(described: Mapping[str, Any]) -> dict[str, Any]:
    model = models.outline(described)
    if "architecture" in described:
        return {"input_size": models.input_size(model)}
    return models.data_config(model)

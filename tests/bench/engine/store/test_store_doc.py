"""docs/store.md describes the records that are really written."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import published_files

from bench.engine import failures
from bench.engine.store import FOLDERS, SCHEMA, Store
from bench.engine.task import Task
from bench.engine.worker import run_task
from bench.tasks import KINDS

ROOT = Path(__file__).resolve().parents[4]
TEXT = (ROOT / "docs" / "store.md").read_text(encoding="utf-8")


def documented_fields() -> set[str]:
    section = TEXT.split("## A record, field by field")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def record_of(tmp_path, run) -> dict:
    store = Store(tmp_path / "runs")
    store.prepare()
    task = Task("probe", {"x": 1})
    run_task(store, task, kinds={"probe": SimpleNamespace(version=1, run=run)})
    return store.record(task)


def test_every_field_of_a_done_record_is_documented(tmp_path):
    def run(job):
        (job.out / "file").write_text("made")
        return {"figure": 1.0}

    record = record_of(tmp_path, run)
    assert set(record) == documented_fields()
    assert set(record["artifacts"]["file"]) == {"size", "sha256", "changed_ns"}


def test_every_field_of_a_failed_record_is_documented(tmp_path):
    def run(job):
        raise RuntimeError("on purpose")

    record = record_of(tmp_path, run)
    assert set(record) == documented_fields()
    assert set(record["error"]) == {"cause", "message", "traceback"}
    assert f"`{record['error']['cause']}`" in TEXT


def test_schema_folders_and_causes_are_named():
    assert f"Schema {SCHEMA}." in TEXT
    assert all(f"`{folder}/" in TEXT for folder in FOLDERS)
    named = (value for name, value in vars(failures).items() if name.isupper() and isinstance(value, str))
    assert all(f"`{cause}`" in TEXT for cause in named)


def test_every_kind_of_task_and_every_published_metric_is_named():
    assert [kind for kind in KINDS if f"| `{kind}` |" not in TEXT] == []
    metrics = {
        f"{record['kind']}: {name}"
        for path in (ROOT / "results").glob("*/records/*.jsonl")
        for record in published_files.lines(path)[2]
        for name in record["metrics"]
        if f"`{name}`" not in TEXT
    }
    assert metrics == set()

"""Grids that publish at one scale at the same time leave each other alone."""

from __future__ import annotations

import textwrap

import pytest

from bench import publish
from bench.engine import atomic, provenance
from bench.engine.plan import CellTasks
from bench.engine.store import Store, identity, seal
from bench.engine.task import Task
from bench.grid import load
from bench.publish import manifest


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "runs")
    store.prepare()
    return store


def grid(tmp_path, name: str):
    path = tmp_path / f"{name}.yaml"
    text = f"""
    name: {name}
    title: T
    experiment: smoke
    methods: {{a: {{title: A, source: none}}}}
    scales: {{digits: {{axes: {{method: [a], seed: [0]}}}}}}
    """
    path.write_text(textwrap.dedent(text))
    return load(path)


def done(store: Store, value: int) -> list[CellTasks]:
    """One cell whose only task is done."""
    task = Task("k", {"value": value})
    frame = {**provenance.origin("cpu"), "started": "", "finished": "2000-01-01", "seconds": 1.0, "log": ""}
    rest = {"status": "done", "artifacts": {}, "metrics": {}, "error": None, "slurm_job_id": None}
    store.record_path(task).parent.mkdir(exist_ok=True)
    atomic.write_json(store.record_path(task), seal({**frame, **rest, **identity(task)}))
    return [CellTasks({"method": "a", "seed": 0}, {"k": task})]


def test_a_grid_that_publishes_in_the_middle_of_another(tmp_path, store, monkeypatch):
    first, second = grid(tmp_path, "one"), grid(tmp_path, "two")
    results, write = tmp_path / "results", atomic.write_text

    def interrupted(path, *more):
        if path.name == "one.jsonl":
            monkeypatch.setattr(atomic, "write_text", write)
            publish.render(second, "digits", done(store, 2), store, results, {"command": "x"})
        return write(path, *more)

    monkeypatch.setattr(atomic, "write_text", interrupted)
    publish.render(first, "digits", done(store, 1), store, results, {"command": "x"})
    assert {sheet.grid: len(sheet.records) for sheet in manifest.sheets(results)} == {"one": 1, "two": 1}


def test_a_record_of_two_grids_stands_with_both_and_goes_with_each(tmp_path, store):
    first, second, results = grid(tmp_path, "one"), grid(tmp_path, "two"), tmp_path / "results"
    for each in (first, second):
        publish.render(each, "digits", done(store, 1), store, results, {"command": "x"})
    publish.render(first, "digits", done(store, 3), store, results, {"command": "x"})
    one, two = manifest.sheets(results)
    assert [record["settings"]["value"] for record in one.records.values()] == [3]
    assert [record["settings"]["value"] for record in two.records.values()] == [1]
    assert sorted(path.name for path in (results / "digits/records").iterdir()) == ["one.jsonl", "two.jsonl"]

"""Grids that publish at one scale at the same time leave each other's records alone."""

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
    """The other has written its records, its sheet not yet: nobody names them."""
    first, second = grid(tmp_path, "one"), grid(tmp_path, "two")
    results, write = tmp_path / "results", atomic.write_json

    def interrupted(path, *more, **options):
        if path.name == "one.json":
            monkeypatch.setattr(atomic, "write_json", write)
            publish.render(second, "digits", done(store, 2), store, results, {"command": "x"})
        return write(path, *more, **options)

    monkeypatch.setattr(atomic, "write_json", interrupted)
    publish.render(first, "digits", done(store, 1), store, results, {"command": "x"})
    assert {sheet.grid: len(sheet.records) for sheet in manifest.sheets(results)} == {"one": 1, "two": 1}


def test_a_record_that_another_grid_comes_to_name_as_it_goes_is_kept(tmp_path, store, monkeypatch):
    first, second = grid(tmp_path, "one"), grid(tmp_path, "two")
    results, named = tmp_path / "results", manifest._named
    publish.render(first, "digits", done(store, 1), store, results, {"command": "x"})

    def slow(folder):
        found = named(folder)
        monkeypatch.setattr(manifest, "_named", named)
        publish.render(second, "digits", done(store, 1), store, results, {"command": "x"})
        return found

    monkeypatch.setattr(manifest, "_named", slow)
    publish.render(first, "digits", done(store, 3), store, results, {"command": "x"})
    assert {sheet.grid: len(sheet.records) for sheet in manifest.sheets(results)} == {"one": 1, "two": 1}


def test_what_no_sheet_names_any_more_is_removed(tmp_path, store):
    first, results = grid(tmp_path, "one"), tmp_path / "results"
    for value in (1, 2):
        publish.render(first, "digits", done(store, value), store, results, {"command": "x"})
    assert len(list((results / "digits" / "records").iterdir())) == 2  # the sheet and its record

"""Estimates: which records count for how long a task will take, and how workers share it."""

from __future__ import annotations

import pytest
import toy_suite

from bench.engine.plan import CellTasks, make_plan
from bench.engine.states import Estimates, shared, survey
from bench.engine.store import Store
from bench.engine.task import Task
from bench.engine.worker import run_task
from bench.grid import Expect


def leaf(size: str, seed: int) -> Task:
    return Task("leaf", {"name": size, "seed": seed}, label=f"{size} {seed}")


SMALL, SMALL_AGAIN, LARGE, OTHER = leaf("small", 0), leaf("small", 1), leaf("large", 0), leaf("other", 0)


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "deep" / "down" / "store")  # made with the folders above it
    store.prepare()
    return store


def estimates(store: Store, *tasks: Task, **expect: float) -> Estimates:
    plan = make_plan([CellTasks({}, {"value": task}) for task in tasks])
    return Estimates(plan, survey(plan, store), store, Expect(cpu=expect), on_gpu=False)


def test_a_task_takes_as_long_as_those_that_differ_in_the_seed_only(store):
    known = estimates(store, SMALL, leaf=1000.0)
    assert known.seconds(SMALL) == 1000, "what the grid expects, while nothing has been done"
    known.learn("leaf", SMALL.settings, 10)
    known.learn("leaf", LARGE.settings, 30)
    assert known.seconds(SMALL_AGAIN) == 10 and known.seconds(LARGE) == 30
    assert known.seconds(OTHER) == 20, "the mean of its kind"
    assert known.seconds(Task("root", {"name": "root"})) is None


def test_whoever_plans_a_task_may_know_better_than_the_grid_and_its_kind(store):
    """Weights that come with the project are read in a second, where a training takes an hour."""
    told = Task("leaf", {"name": "told", "seed": 0}, expected=2.0)
    assert told.key == Task("leaf", {"name": "told", "seed": 0}).key
    known = estimates(store, told, LARGE, leaf=1000.0)
    known.learn("leaf", SMALL.settings, 500)
    assert known.seconds(told) == 2 and known.seconds(LARGE) == 500
    known.learn("leaf", told.settings, 3)
    assert known.seconds(told) == 3, "what such a task took"


def test_records_of_another_device_do_not_count(store):
    run_task(store, SMALL, kinds=toy_suite.KINDS)
    plan = make_plan([CellTasks({}, {"value": SMALL})])
    states = survey(plan, store)
    here, there = (Estimates(plan, states, store, Expect(), on_gpu=on_gpu) for on_gpu in (False, True))
    assert here.seconds(SMALL_AGAIN) == store.record(SMALL)["seconds"]
    assert there.seconds(SMALL_AGAIN) is None


def test_records_of_another_plan_count_where_this_one_has_none(store):
    run_task(store, SMALL, kinds=toy_suite.KINDS)
    took = store.record(SMALL)["seconds"]
    assert estimates(store, LARGE).seconds(LARGE) == took
    assert estimates(store, LARGE, leaf=1000.0).seconds(LARGE) == 1000, "the grid knows its sizes better"
    assert estimates(store, SMALL_AGAIN, leaf=1000.0).seconds(SMALL_AGAIN) == took


def test_the_total_is_shared_and_says_of_how_many_nothing_is_known(store):
    known = estimates(store, SMALL)
    known.learn("leaf", SMALL.settings, 10)
    assert known.total([SMALL, SMALL_AGAIN, Task("root", {"name": "root"})], workers=2) == (10, 1)


@pytest.mark.parametrize(
    ("seconds", "workers", "taken"),
    [([], 1, 0), ([10, 20], 1, 30), ([10, 10, 10, 10], 2, 20), ([10, 30], 2, 30), ([10, 20], 0, 30)],
)
def test_workers_share_what_can_be_shared(seconds, workers, taken):
    assert shared(seconds, workers) == taken

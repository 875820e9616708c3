"""Plans: each task once, inputs first, keys that do not drift."""

import pytest

from bench.engine.plan import CellTasks, make_plan, only
from bench.engine.task import Task
from bench.errors import BenchError


def cells(models: int = 2, methods: int = 2, bits: int = 2, seeds: int = 2) -> list[CellTasks]:
    found = []
    for model in range(models):
        for method in range(methods):
            for width in range(bits):
                for seed in range(seeds):
                    teacher = Task("teacher", {"model": model}, label=f"train {model}")
                    images = Task(
                        "images",
                        {"method": method, "seed": seed},
                        {"teacher": teacher},
                        label=f"invert {model} {method}",
                    )
                    quantized = Task(
                        "quantize",
                        {"bits": width},
                        {"teacher": teacher, "images": images},
                        label=f"quantize {model} {method} {width} seed {seed}",
                    )
                    evaluated = Task("evaluate", {}, {"teacher": teacher}, label=f"evaluate {model}")
                    found.append(CellTasks({"model": model}, {"top1": quantized, "full": evaluated}))
    return found


def test_tasks_are_shared_and_come_after_their_inputs():
    plan = make_plan(cells())
    kinds = [task.kind for task in plan.tasks]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "teacher": 2,
        "images": 8,
        "quantize": 16,
        "evaluate": 2,
    }
    seen = set()
    for task in plan.tasks:
        assert all(needed.name in seen for needed in task.inputs.values())
        seen.add(task.name)


def test_stages_need_earlier_stages_only():
    stages = make_plan(cells()).stages
    assert [{task.kind for task in stage} for stage in stages] == [
        {"teacher"},
        {"images", "evaluate"},
        {"quantize"},
    ]
    assert sum(len(stage) for stage in stages) == 28


def test_ten_thousand_cells():
    plan = make_plan(cells(models=10, methods=10, bits=10, seeds=10))
    assert len(plan.tasks) == 10 + 1000 + 10_000 + 10
    assert [len(stage) for stage in plan.stages] == [10, 1010, 10_000]


def test_deep_chains_do_not_exhaust_the_stack():
    task = Task("step", {"n": 0})
    for n in range(1, 3000):
        task = Task("step", {"n": n}, {"before": task})
        assert task.key
    assert len(make_plan([CellTasks({}, {"end": task})]).stages) == 3000


def test_only_picks_tasks_by_pattern_and_keeps_what_they_need():
    whole = make_plan(cells())
    tasks = only(whole, "quantize 1 * seed 0").tasks
    assert {task.kind for task in tasks} == {"teacher", "images", "quantize"}
    assert all(task.settings["model"] == 1 for task in tasks if task.kind == "teacher")
    assert {task.kind for task in only(whole, "evaluate").tasks} == {"teacher", "evaluate"}
    assert [task.kind for task in only(whole, "teacher*").tasks] == ["teacher", "teacher"], "inputs too"
    with pytest.raises(BenchError, match=r"'nothing' fits none of the 24 tasks; there are: train 0"):
        only(whole, "nothing")


def test_keys_of_reference_tasks_are_frozen():
    """A change here makes every store recompute everything. A task's meaning changes through its `version` only."""
    teacher = Task("teacher", {"model": "digits_vit", "epochs": 20, "lr": 0.002, "seed": 0})
    images = Task(
        "images", {"source": "noise", "count": 32, "seed": 1, "stopping": None}, {"teacher": teacher}
    )
    quantized = Task(
        "quantize", {"weight_bits": 4, "names": ["a", "é"]}, {"teacher": teacher, "images": images}, 3
    )
    assert [task.key for task in (teacher, images, quantized)] == KEYS


KEYS = ["88ab152e1367fb0f", "050922c591220cc8", "420450dc32b56251"]


def test_keys_depend_on_what_changes_results_and_on_nothing_else():
    base = Task("images", {"seed": 0, "count": 1}, label="one")
    assert base.key == Task("images", {"count": 1, "seed": 0}, label="two").key
    others = [
        Task("images", {"seed": 1, "count": 1}),
        Task("image", {"seed": 0, "count": 1}),
        Task("images", {"seed": 0, "count": 1}, version=2),
        Task("images", {"seed": 0, "count": 1}, {"teacher": base}),
        Task("images", {"seed": 0, "count": 1}, {"student": base}),
        Task("images", {"seed": 0, "count": 1.5}),
    ]
    assert len({base.key, *(task.key for task in others)}) == 7
    with pytest.raises(ValueError, match="JSON"):
        _ = Task("images", {"lr": float("nan")}).key

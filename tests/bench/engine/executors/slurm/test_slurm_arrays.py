"""How tasks are cut into arrays, and which jobs an array waits for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from small_plan import IMAGES, LEAVES, ROOT

from bench.engine.executors.slurm import arrays
from bench.engine.task import Task
from bench.grid import Resources


@given(count=st.integers(1, 40), largest=st.integers(1, 12))
def test_arrays_hold_every_task_once_and_none_is_too_large(count, largest):
    tasks = [ROOT, *(Task("images", {"seed": seed}, {"teacher": ROOT}) for seed in range(count))]
    groups = arrays.cut(tasks, {"images": Resources(gpus=1)}, largest)
    assert [task for group, _ in groups for task in group] == tasks
    assert all(len(group) <= largest for group, _ in groups)
    assert len(groups) == 1 + -(-count // largest)


def test_one_array_per_stage_and_class_of_resources():
    other = Task("transfer", {}, {"images": IMAGES[0]})
    tasks = [ROOT, *IMAGES, *LEAVES, other]
    groups = [[task.kind for task in group] for group, _ in arrays.cut(tasks, {}, 1001)]
    assert groups == [["teacher"], ["images"] * 5, ["quantize"] * 5 + ["transfer"]]
    classes = {"transfer": Resources(gpus=1), "quantize": Resources(cpus=2)}
    assert len(arrays.cut(tasks, classes, 1001)) == 4


def test_an_array_waits_for_the_jobs_of_its_inputs():
    where = {ROOT.name: "7", IMAGES[0].name: "12_0", IMAGES[1].name: "12_10", IMAGES[2].name: "9_4"}
    assert arrays.jobs_before(LEAVES[:3], where) == ("7", "9_4", "12_0", "12_10")
    assert arrays.jobs_before(LEAVES, {}) == ()


def test_it_waits_for_a_whole_array_where_its_inputs_are_many(monkeypatch):
    where = {image.name: f"12_{index}" for index, image in enumerate(IMAGES)} | {ROOT.name: "7_3"}
    monkeypatch.setattr(arrays, "SINGLY", 4)
    assert arrays.jobs_before(LEAVES, where) == ("7_3", "12")
    assert arrays.jobs_before(LEAVES[:4], where) == ("7_3", "12_0", "12_1", "12_2", "12_3")


def test_one_models_tasks_do_not_wait_for_anothers():
    """Noise, which both are calibrated on, waits for nothing and ties nothing together."""
    noise = Task("images", {"source": "noise"})
    tasks = [noise]
    for name in ("tiny", "base"):
        teacher = Task("teacher", {"model": name})
        images = [Task("images", {"seed": seed}, {"teacher": teacher}) for seed in range(2)]
        quantized = [
            Task("quantize", {}, {"teacher": teacher, "images": image}) for image in (*images, noise)
        ]
        tasks += [teacher, *images, *quantized]
    groups = [list(group) for group, _ in arrays.cut(tasks, {}, 1001)]
    assert {task.name for task in groups[0]} == {task.name for task in tasks if not task.inputs}
    assert [len({task.inputs["teacher"] for task in group}) for group in groups[1:]] == [1] * 4
    where = {
        task.name: f"{place}_{index}"
        for place, group in enumerate(groups)
        for index, task in enumerate(group)
    }
    for group in groups[1:]:
        own = {
            where[task.name]
            for task in (*tasks, noise)
            if task.inputs.get("teacher") == group[0].inputs["teacher"]
        }
        shared = {where[group[0].inputs["teacher"].name], where[noise.name]}
        assert set(arrays.jobs_before(group, where)) <= own | shared


def test_what_goes_back_to_a_task_of_its_own_is_one_array_all_the_same():
    """An array for each would be an sbatch for each."""
    first = [Task("first", {"number": number}) for number in range(9)]
    second = [Task("second", {"times": times}, {"first": one}) for one in first for times in range(2)]
    assert [len(group) for group, _ in arrays.cut([*first, *second], {}, 1001)] == [9, 18]


def test_tasks_that_share_jobs_are_cut_by_jobs():
    groups = arrays.cut(IMAGES, {"images": Resources(tasks_per_job=2)}, 2)
    assert [len(group) for group, _ in groups] == [4, 1]

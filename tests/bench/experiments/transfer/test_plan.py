"""From the cells of kd.yaml to tasks: pools, what they share with each other and with Table 3, what is refused."""

from collections import Counter
from pathlib import Path

import pytest
import yaml_text

from bench import experiments
from bench.engine.plan import make_plan
from bench.engine.task import Sources
from bench.errors import BenchError
from bench.grid import load

EXPERIMENTS = Path(__file__).parents[4] / "experiments"


@pytest.fixture
def kd(tmp_path):
    """A function that writes kd.yaml, changed, and builds its digits scale."""

    def build(change=lambda grid: None, sources=None):
        grid = yaml_text.read(EXPERIMENTS / "kd.yaml")
        change(grid)
        path = tmp_path / "kd.yaml"
        path.write_text(yaml_text.dump(grid), encoding="utf-8")
        return experiments.build(load(path), "digits", sources or Sources())

    return build


def test_every_row_has_equal_images_and_steps(kd):
    cells = [entry for entry in kd() if "transfer" in entry.tasks]
    assert Counter(entry.cell["method"] for entry in cells) == dict.fromkeys(
        {entry.cell["method"] for entry in cells}, 3
    )
    for entry in cells:
        task = entry.tasks["transfer"]
        sets = [needed for name, needed in task.inputs.items() if name.startswith("images_")]
        assert sum(one.settings["count"] for one in sets) == 128
        assert task.settings["transfer"]["steps"] == 500 and task.settings["transfer"]["batch_size"] == 32
        assert len({one.key for one in sets}) == len(sets)


def test_controls_through_random_patches_see_as_many_as_the_sparse_row_and_share_the_dense_images(kd):
    tasks = {(e.cell["method"], e.cell["seed"]): e.tasks.get("transfer") for e in kd()}
    sparse, dense, control = (
        tasks[name, 1] for name in ("deepinversion_sparse", "deepinversion_dense", "dense_random_patches")
    )
    assert control.settings["transfer"]["patches"] == 14
    assert dense.settings["transfer"]["patches"] is None and sparse.settings["transfer"]["patches"] is None
    assert {k: t.key for k, t in control.inputs.items()} == {k: t.key for k, t in dense.inputs.items()}
    assert sparse.inputs["images_000000"].settings["stopping"] == {"at": [20, 40, 60, 80], "drop": [0.3] * 4}
    scores = {tasks[name, 0].inputs["images_000000"].settings["score"] for name in ("random_selection",)}
    assert scores == {"random"}


def test_inversions_and_teacher_are_those_of_table3(kd):
    table3 = experiments.build(load(EXPERIMENTS / "table3.yaml"), "digits", Sources())
    theirs = {task.key for task in make_plan(table3).tasks if task.kind in ("images", "teacher")}
    ours = [task for task in make_plan(kd()).tasks if task.kind in ("images", "teacher")]
    shared = Counter(task.kind for task in ours if task.key in theirs)
    # the first set of each pool of each seed: dense, sparse, three rebirths, two random selections
    assert shared == {"teacher": 1, "images": 21}


def test_a_longer_pool_begins_with_the_sets_of_a_shorter_one(kd):
    def two_pools(grid):
        scale = grid["scales"]["digits"]
        scale["axes"] |= {"pool": ["short", "long"], "method": ["deepinversion_sparse"]}
        scale["settings"]["pools"] = {
            "short": {"rounds": 2, "images": 16, "steps": 5, "batch_size": 8},
            "long": {"rounds": 5, "images": 16, "steps": 2, "batch_size": 8},
        }

    cells = kd(two_pools)
    short, long = (
        next(e.tasks["transfer"] for e in cells if e.cell["pool"] == name and e.cell["seed"] == 0)
        for name in ("short", "long")
    )
    assert short.settings["transfer"]["rounds"] == 2 and long.settings["transfer"]["rounds"] == 5
    assert [len(task.inputs) - 1 for task in (short, long)] == [2, 5]
    assert list(short.inputs.items()) == list(long.inputs.items())[:3], "the teacher and the first two sets"
    assert Counter(task.kind for task in make_plan(cells).tasks)["images"] == 3 * 5


def test_the_teacher_is_scored_once_and_no_student_starts_as_it_did(kd):
    plan = make_plan(kd())
    assert Counter(task.kind for task in plan.tasks)["evaluate"] == 1
    transfer = next(task for task in plan.tasks if task.kind == "transfer")
    assert (
        transfer.settings["student"]["name"] == "digits_vit" and "weights" not in transfer.settings["student"]
    )


def half(**changes):
    """A change of the grid: students that have learnt half of the classes, besides fresh ones."""

    def change(grid):
        student = {"classes": [0, 1, 2, 3, 4], "training": {"epochs": 3}, "seed": 1000, **changes}
        settings(grid)["students"] = {"half_classes": student}
        grid["scales"]["digits"]["axes"]["student"] = ["fresh", "half_classes"]

    return change


def test_students_that_learnt_half_of_the_classes_are_one_task_for_all_rows(kd):
    cells = kd(half())
    taught = [e for e in cells if "transfer" in e.tasks and e.cell["student"] == "half_classes"]
    students = {e.tasks["transfer"].inputs["student"].key for e in taught}
    assert len(students) == 1 and len(taught) == 36
    student = taught[0].tasks["transfer"].inputs["student"]
    assert (
        student.settings["train"]["classes"] == student.settings["validation"]["classes"] == [0, 1, 2, 3, 4]
    )
    assert student.settings["training"]["epochs"] == 3 and student.settings["seed"] == 1000
    fresh = {e.tasks["transfer"].key for e in cells if "transfer" in e.tasks and e.cell["student"] == "fresh"}
    assert fresh == {e.tasks["transfer"].key for e in kd() if "transfer" in e.tasks}, "as without the axis"


def test_two_teachers_of_one_architecture_are_two_seeds_of_its_training(kd):
    def two(grid):
        grid["scales"]["digits"]["axes"]["model"] = ["digits_vit", "digits_vit@7"]

    cells = kd(two, Sources(retrain=True))
    teachers = {task.key: task for task in make_plan(cells).tasks if task.kind == "teacher"}
    assert sorted(task.settings["seed"] for task in teachers.values()) == [0, 7]
    assert len({str(task.settings["model"]) for task in teachers.values()}) == 1


def settings(grid):
    return grid["scales"]["digits"]["settings"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda g: g["scales"]["digits"]["axes"].update(pool=["tiny"]),
            r"unknown pool 'tiny'; allowed: one_round",
        ),
        (lambda g: g["scales"]["digits"]["axes"].update(seed=[10_000]), "10000 is too great"),
        (
            lambda g: settings(g)["pools"]["one_round"].update(set=33),
            "128 images a round are no multiple of a set",
        ),
        (lambda g: settings(g)["pools"]["one_round"].update(steps=0), r"pools.one_round.steps"),
        (lambda g: settings(g)["pools"]["one_round"].update(image=3), "unknown key 'image'"),
        (
            lambda g: settings(g)["learning"].update(temperature=0.0),
            "temperature is 0.0; allowed: a number above 0",
        ),
        (lambda g: settings(g)["learning"].update(optimizer="adam"), "optimizer"),
        (lambda g: settings(g)["learning"].update(jitter=2.0), "jitter is 2.0"),
        (lambda g: g["methods"]["real_random_patches"].update(shown="none"), "no schedule 'none'"),
        (lambda g: settings(g).pop("learning"), "the key 'learning' is missing"),
        (lambda g: g["scales"]["digits"]["axes"].pop("pool"), "the axis 'pool' is missing"),
        (
            lambda g: g["scales"]["digits"]["axes"].update(student=["best"]),
            "unknown student 'best'; allowed: fresh",
        ),
        (half(classes=[3, 10]), "class 10 is none of digits's; allowed: 0 to 9"),
        (half(training={"epoch": 1}), "unknown setting 'epoch'"),
    ],
)
def test_what_makes_no_sense_is_one_line_with_the_key(kd, change, message):
    with pytest.raises(BenchError, match=message) as raised:
        kd(change)
    assert "kd.yaml, line" in str(raised.value) and "\n" not in str(raised.value)

"""Keys of reference tasks are frozen: a change of code that would silently make every store compute anew shows here."""

from pathlib import Path

from bench.engine.plan import make_plan
from bench.engine.task import Sources
from bench.experiments import build
from bench.grid import load

FROZEN = {  # label -> (version of the kind, key)
    "teacher digits_vit": (1, "7fd16c6c6c8d6753"),
    "evaluate digits_vit full precision": (1, "041c830fc87a6f4f"),
    "images digits_vit noise seed 0": (1, "74c3655e18dea6e9"),
    "quantize digits_vit noise W4/A8 seed 0": (1, "c6edd03375c66b41"),
    "images digits_vit dense seed 0": (1, "fdb63664efbc0f97"),
    "quantize digits_vit dense W4/A8 seed 0": (1, "5b05987f44e21e07"),
    "images digits_vit sparse seed 0": (1, "faadabedba4507ca"),
    "quantize digits_vit sparse W4/A8 seed 0": (1, "34dcbe49ec817811"),
    "images digits_vit psaq seed 0": (1, "0756210cb18b82fd"),
    "quantize digits_vit psaq W4/A8 seed 0": (1, "45678d27443bb307"),
}


def test_a_key_changes_with_the_version_of_its_kind_only():
    """If this fails and a kind now computes something else: raise its version in bench/tasks, and freeze the new keys.

    If nothing computes anything else, the change of keys is the mistake: it throws away everybody's results. A
    task's version reaches the keys of all that depend on it.
    """
    grid = load(Path(__file__).with_name("reference.yaml"))
    plan = make_plan(build(grid, "digits", Sources(retrain=True)))
    assert {task.label: (task.version, task.key) for task in plan.tasks} == FROZEN


def test_the_teacher_that_comes_with_the_project_is_named_by_its_weights():
    """Other weights in its file are another key: nothing made of the old ones is then taken for theirs."""
    grid = load(Path(__file__).with_name("reference.yaml"))
    plan = make_plan(build(grid, "digits", Sources()))
    keys = {task.label: task.key for task in plan.tasks}
    assert keys["teacher digits_vit@0"] == "4bb14a15a7a9abc3"
    assert not set(keys.values()) & {key for label, (_, key) in FROZEN.items() if "teacher" in label}

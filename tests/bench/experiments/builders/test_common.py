"""From the cells of table3.yaml to tasks: what is shared, what is said of settings that make no sense."""

from collections import Counter
from pathlib import Path

import pytest
import yaml_text

from bench import datasets, experiments
from bench.engine.plan import make_plan
from bench.engine.task import Sources
from bench.errors import BenchError
from bench.grid import load
from smi.errors import SmiError

TABLE3 = Path(__file__).parents[4] / "experiments" / "table3.yaml"


@pytest.fixture
def table3(tmp_path):
    """A function that writes table3.yaml, changed, and builds its digits scale."""

    def build(change=lambda grid: None, scale="digits", sources=None):
        grid = yaml_text.read(TABLE3)
        change(grid)
        path = tmp_path / "table3.yaml"
        path.write_text(yaml_text.dump(grid), encoding="utf-8")
        return experiments.build(load(path), scale, sources or Sources())

    return build


def test_bit_widths_share_images_and_all_share_one_teacher(table3):
    plan = make_plan(table3())
    assert Counter(task.kind for task in plan.tasks) == {
        "teacher": 1,
        "evaluate": 1,
        "images": 36,
        "quantize": 72,
    }
    images = {task.label: task for task in plan.tasks if task.kind == "images"}
    settings = images["images digits_vit deepinversion_sparse seed 2"].settings
    assert settings["stopping"] == {"at": [20, 40, 60, 80], "drop": [0.3] * 4}
    assert settings["recipe"]["iterations"] == 200 and settings["recipe"]["flip"] == 0
    assert settings["score"] == "cls_attention" and settings["seed"] == 2
    assert images["images digits_vit random_selection seed 0"].settings["score"] == "random"
    assert images["images digits_vit noise_random_patches seed 0"].settings["random_patches"] == 14
    assert images["images digits_vit gaussian_noise seed 0"].settings["random_patches"] is None
    assert images["images digits_vit real seed 0"].settings["data"]["split"] == "train"
    psaq = images["images digits_vit psaq_dense seed 0"].settings
    assert psaq["stopping"] is None and psaq["score"] is None and psaq["recipe"]["rounds"] == 2


def test_the_teacher_learns_from_train_and_is_judged_on_validation(table3):
    cells = table3(sources=Sources(retrain=True))
    teacher = next(task for task in make_plan(cells).tasks if task.kind == "teacher")
    assert (teacher.settings["train"]["split"], teacher.settings["validation"]["split"]) == (
        "train",
        "validation",
    )


def test_only_what_changes_a_result_changes_its_key(table3):
    def keys(change=lambda grid: None):
        return {task.label: task.key for task in make_plan(table3(change)).tasks}

    def rename(grid):
        grid["title"] = "Another"
        grid["methods"]["real"]["title"] = "Real"
        grid["scales"]["digits"]["resources"] = {}

    def longer(grid):
        grid["scales"]["digits"]["settings"]["recipes"]["psaq"]["iterations"] = 300

    before = keys()
    assert keys(rename) == before
    changed = {label for label, key in keys(longer).items() if key != before[label]}
    assert changed == {label for label in before if "psaq" in label}


def test_equal_numbers_have_one_key_however_they_are_spelt(table3):
    def keys(number):
        def change(grid):
            settings = grid["scales"]["digits"]["settings"]
            settings["recipes"]["deepinversion"] |= {"learning_rate": number(1), "flip": number(0)}
            settings["teacher"] |= {"clip": number(2), "weight_decay": number(0)}

        return {task.key for task in make_plan(table3(change)).tasks}

    assert keys(int) == keys(float)


def test_what_is_not_here_gets_a_placeholder_where_tasks_are_only_looked_at(table3, monkeypatch):
    monkeypatch.setattr("bench.models.weights.hub_file", lambda tag, local_only: None)
    looking = Sources(placeholders={})
    plan = make_plan(table3(scale="paper", sources=looking))
    assert {"teacher", "evaluate", "images", "quantize"} == {task.kind for task in plan.tasks}
    assert any("real" in task.label for task in plan.tasks)
    assert "--imagenet PATH" in looking.placeholders["data set imagenet"]
    assert "--checkpoints DIR" in looking.placeholders["weights deit_tiny_patch16_224"]
    assert len(looking.placeholders) == 3


def test_who_only_looks_asks_no_hub(table3, monkeypatch):
    def local(tag, local_only):
        assert local_only

    monkeypatch.setattr("bench.models.weights.hub_file", local)
    table3(scale="paper", sources=Sources(placeholders={}))


def test_a_folder_that_was_given_gets_no_placeholder(table3, tmp_path):
    given = Sources(data={"imagenet": tmp_path}, placeholders={})
    with pytest.raises(BenchError, match="holds no class folders"):
        table3(scale="paper", sources=given)


def setting(*path):
    """A change that sets the value at a path of the digits scale's settings."""

    def change(grid):
        *parents, last, value = path
        place = grid["scales"]["digits"]["settings"]
        for part in parents:
            place = place[part]
        place[last] = value

    return change


def method(name, **values):
    return lambda grid: grid["methods"][name].update(values)


def include(**entry):
    return lambda grid: grid["scales"]["digits"].update(include=[entry])


def axis(name, value):
    return lambda grid: grid["scales"]["digits"]["axes"].update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (setting("schedules", "sparse77", "at", [40, 20]), "stops must increase strictly"),
        (setting("schedules", "sparse77", "at", [20, 200]), "the last stop must come before the end"),
        (setting("schedules", "sparse77", "drop", 1.0), "fraction must lie strictly between 0 and 1"),
        (setting("schedules", "sparse77", {"at": [1, 2], "drop": [0.99, 0.99]}), "drops every patch"),
        (setting("schedules", "sparse77", "every", 10), "unknown key 'every'; allowed: at, drop"),
        (setting("schedules", {}), "has no schedule 'sparse77'"),
        (setting("recipes", "psaq", "iterations", 201), "a multiple of rounds"),
        (setting("recipes", "psaq", "lr", 0.1), "recipe psaq: unknown setting 'lr'"),
        (setting("recipes", "deepdream", {}), "unknown recipe 'deepdream'; allowed: .*deepinversion"),
        (setting("images", "count", 0), "settings.images.count.*greater than or equal to 1"),
        (
            setting("images", "count", 1132),
            "1132 real images are asked for, and .* holds 1131; allowed: 1 to 1131",
        ),
        (setting("images", "precision", "fp8"), "settings.images.precision"),
        (setting("teacher", "epoch", 3), "teacher training: unknown setting 'epoch'"),
        (setting("pictures", 3), "unknown key 'pictures'"),
        (method("psaq_dense", recipe="dream"), "unknown recipe 'dream'; allowed: .*psaq"),
        (method("real", recipe="psaq"), "takes no recipe"),
        (method("real", source="web"), "methods.real.source"),
        (method("real", stopping="sparse77"), "only an inversion stops patches"),
        (method("psaq_dense", random_patches="sparse77"), "only noise and real images take random patches"),
        (method("random_selection", score="best"), "unknown score 'best'; allowed: .*least_attention"),
        (method("real", colour="red"), "unknown key 'colour'"),
        (setting("recipes", "psaq", "name", "mine"), r"settings\.recipes\.psaq\.name: .*remove name"),
        (
            setting("recipes", "psaq", "betas", 0.9),
            r"line \d+, .*recipes\.psaq\.betas: .*allowed: two numbers",
        ),
        (setting("recipes", "psaq", "betas", None), r"psaq\.betas: .* betas is None; allowed: two numbers"),
        (setting("recipes", "psaq", "joint_jitter", "yes"), r"psaq\.joint_jitter: .*allowed: True, False"),
        (setting("recipes", "psaq", "warmup", True), r"psaq\.warmup: .* warmup is True"),
        (setting("recipes", "psaq", "student", "digits_vit"), r"psaq\.student: .*allowed: a model, or None"),
        (setting("recipes", "psaq", "learning_rate", True), r"psaq\.learning_rate: .*a number above 0"),
        (setting("recipes", "psaq", "objective", 3), r"psaq\.objective: .*allowed: a list of"),
        (setting("schedules", "sparse77", "drop", True), "sparse77.drop"),
        (setting("schedules", "sparse77", "drop", "0.3"), "sparse77.drop"),
        (setting("schedules", "sparse77", "at", [True, 2]), "sparse77.at"),
        (setting("teacher_seed", -1), "settings.teacher_seed: .*greater than or equal to 0"),
        (setting("teacher_seed", 10**12), "settings.teacher_seed: .*less than"),
        (
            setting("datasets", {"imagenet": {"crop_pct": True}, "digits": {"size": 3}}),
            r"datasets\.digits: .*'size'",
        ),
        (axis("model", [1]), r"axes\.model\[0\]: 1 is no name; allowed: text"),
        (axis("dataset", [True]), r"axes\.dataset\[0\]: True is no name"),
        (axis("method", [0.5]), r"axes\.method\[0\]: 0.5 is no name"),
        (axis("model", ["deit_tiny_patch16_224.fb_in1k_v2"]), "no weights 'fb_in1k_v2' .*; allowed: fb_in1k"),
        (
            axis("model", ["deit_tiny_patch16_224."]),
            "no weights '' of deit_tiny_patch16_224; allowed: fb_in1k",
        ),
        (axis("model", ["digits_vit@1234567890"]), "up to 9 digits"),
        (
            include(method="gaussian_noise", seeds=3),
            r"include\[0\]\.seeds: 'seeds' is no axis; allowed: model,",
        ),
        (include(seed=0, count=3), r"include\[0\]\.count: 'count' is no axis"),
        (
            axis("model", ["cifar_vit_small"]),
            r"takes pictures of \(3, 32, 32\) .*, those of digits are \(1, 32, 32\)",
        ),
        (axis("model", ["resnet18"]), "resnet18|ResNet"),
        (axis("model", ["digits_vitt"]), "unknown model 'digits_vitt'.*digits_vit"),
        (axis("model", ["deit_tiny_patch16_224"]), "1000 classes, digits has 10"),
        (axis("dataset", ["mnist"]), "unknown data set 'mnist'"),
        (axis("colour", ["red"]), "unknown axis 'colour'; allowed: model, dataset, method, bits, seed"),
        (lambda grid: grid["scales"]["digits"]["axes"].pop("bits"), "the axis 'bits' is missing"),
        (lambda grid: grid.update(experiment="magic"), "unknown experiment 'magic'; allowed: quantization"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(table3, change, message):
    with pytest.raises((BenchError, SmiError), match=message) as refusal:
        table3(change)
    assert "\n" not in str(refusal.value)


def test_the_paper_scale_says_what_is_missing(table3, tmp_path):
    with pytest.raises(BenchError, match="--imagenet PATH"):
        table3(scale="paper")


def seeds_of(cells) -> dict[str, set[int]]:
    """Model -> seeds of its images."""
    found: dict[str, set[int]] = {}
    for cell in cells:
        for column, task in cell.tasks.items():
            if column == "images":
                found.setdefault(cell.cell["model"], set()).add(task.settings["seed"])
    return found


def test_each_teacher_has_seeds_of_its_own_where_the_scale_says_so_and_else_no_key_moves(table3):
    def two_teachers(grid, seeds=None):
        scale = grid["scales"]["digits"]
        scale["axes"]["model"] = ["digits_vit@0", "digits_vit@3"]
        if seeds is not None:
            scale["settings"]["seeds"] = seeds

    def own(grid):
        two_teachers(grid, "per_teacher")

    assert seeds_of(table3(two_teachers)) == {"digits_vit@0": {0, 1, 2}, "digits_vit@3": {0, 1, 2}}
    assert seeds_of(table3(own)) == {"digits_vit@0": {0, 1, 2}, "digits_vit@3": {3000, 3001, 3002}}
    shared = table3(lambda grid: two_teachers(grid, "shared"))
    names = [[task.name for task in cell.tasks.values()] for cell in shared]
    assert names == [[task.name for task in cell.tasks.values()] for cell in table3(two_teachers)]


@pytest.mark.parametrize(
    ("axis", "values", "said"),
    [
        ("seed", [1000], "whole numbers below 1000"),
        ("model", ["digits_vit@10"], "teachers 0 to 9"),
    ],
)
def test_seeds_of_teachers_never_meet(table3, axis, values, said):
    def change(grid):
        scale = grid["scales"]["digits"]
        scale["settings"]["seeds"] = "per_teacher"
        scale["axes"][axis] = values

    with pytest.raises(BenchError, match=said):
        table3(change)


def test_a_data_set_is_opened_and_counted_once_however_many_cells_there_are(table3, monkeypatch):
    """Its folders may hold a million pictures: to list them for every cell took minutes."""
    opened, counted = [], []
    plain = datasets.open_dataset

    def opening(name, *given):
        opened.append(name)
        found = plain(name, *given)
        count = found.count
        monkeypatch.setattr(found, "count", lambda split: counted.append(split) or count(split))
        return found

    monkeypatch.setattr(datasets, "open_dataset", opening)
    cells = table3(lambda grid: grid["scales"]["digits"]["axes"].update(seed=list(range(20))))
    assert len(cells) > 100
    assert counted == ["train"]
    assert len(opened) <= 4  # by the builder, and for the fingerprint of each of three splits

"""experiments/ablation_deviations.yaml: which tasks each switch changes, and the table from made-up records."""

from pathlib import Path

import pytest
import yaml_text
from two_datasets import doubled

from bench import experiments
from bench.engine.plan import make_plan
from bench.engine.task import Sources
from bench.errors import BenchError
from bench.experiments.deviations import plan as pipeline
from bench.experiments.deviations import table
from bench.grid import load
from bench.publish.manifest import Sheet
from bench.tasks.answers import pack
from smi.published import OF_CALIBRATION, OF_INVERSION

EXPERIMENTS = Path(__file__).parents[4] / "experiments"


def tasks_of(cells):
    return {(c.cell["method"], c.cell["bits"], c.cell["seed"]): c.tasks for c in cells}


@pytest.fixture(scope="module")
def cells():
    return pipeline.build(load(EXPERIMENTS / "ablation_deviations.yaml"), "digits", Sources())


def test_every_deviation_has_a_row_of_its_own_and_all_have_one_together(cells):
    grid = load(EXPERIMENTS / "ablation_deviations.yaml")
    switched = {name: method.get("deviations", []) for name, method in grid.methods.items()}
    known = [*OF_INVERSION, *OF_CALIBRATION]
    assert sorted(names[0] for names in switched.values() if len(names) == 1) == sorted(known)
    assert sorted(switched["as_published"]) == sorted(known) and switched["by_the_text"] == []


def test_a_switch_changes_the_tasks_it_belongs_to_and_no_others(cells):
    tasks = tasks_of(cells)
    text = tasks["by_the_text", "W4/A8", 0]
    assert "deviations" not in text["images"].settings and "deviations" not in text["quantize"].settings
    for name in OF_INVERSION:
        other = tasks[name, "W4/A8", 0]
        assert other["images"].settings == {**text["images"].settings, "deviations": [name]}
        assert other["quantize"].settings == text["quantize"].settings
    for name in OF_CALIBRATION:
        other = tasks[name, "W4/A8", 0]
        assert other["images"].key == text["images"].key
        assert other["quantize"].settings == {**text["quantize"].settings, "deviations": [name]}
    slides = tasks["slides_quantizer", "W4/A8", 0]
    assert slides["quantize"].settings == {**text["quantize"].settings, "formula": "slides"}
    assert tasks["as_published", "W4/A8", 0]["images"].settings["deviations"] == sorted(OF_INVERSION)


def test_the_first_row_is_table3s_and_computed_once(cells):
    table3 = experiments.build(load(EXPERIMENTS / "table3.yaml"), "digits", Sources())
    ours, theirs = tasks_of(cells), tasks_of(table3)
    for bits in ("W4/A8", "W8/A8"):
        for seed in (0, 1, 2):
            mine, other = ours["by_the_text", bits, seed], theirs["deepinversion_sparse", bits, seed]
            assert mine["images"].key == other["images"].key and mine["quantize"].key == other["quantize"].key
    assert len([task for task in make_plan(cells).tasks if task.kind == "images"]) == 18


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"deviations": ["tv"]}, "unknown deviation 'tv'; allowed: .*whole_image_tv"),
        ({"deviations": "eight_bit"}, "deviations"),
        (
            {"source": "noise", "recipe": None, "stopping": None, "deviations": ["eight_bit"]},
            "'eight_bit' is a deviation of inversions",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, values, message):
    grid = yaml_text.read(EXPERIMENTS / "ablation_deviations.yaml")
    grid["methods"]["eight_bit"].update(values)
    path = tmp_path / "ablation_deviations.yaml"
    path.write_text(yaml_text.dump(grid), encoding="utf-8")
    with pytest.raises(BenchError, match=message) as refusal:
        pipeline.build(load(path), "digits", Sources())
    assert "\n" not in str(refusal.value)


def test_other_experiments_know_no_deviations(tmp_path):
    grid = yaml_text.read(EXPERIMENTS / "table3.yaml")
    grid["methods"]["deepinversion_sparse"]["deviations"] = ["eight_bit"]
    path = tmp_path / "table3.yaml"
    path.write_text(yaml_text.dump(grid), encoding="utf-8")
    with pytest.raises(BenchError, match="unknown key 'deviations'"):
        experiments.build(load(path), "digits", Sources())


def made_up_sheet() -> Sheet:
    def done(metrics):
        more = {
            "device": "Made-up",
            "device_type": "cpu",
            "versions": {"torch": "2.9"},
            "commit": "0123",
            "dirty": None,
        }
        return {
            "status": "done",
            "metrics": metrics,
            "finished": "2026-01-02T03:04:05",
            "seconds": 1.0,
            **more,
        }

    records, cells = {}, []
    figures = {"by_the_text": (90.0, 91.0), "eight_bit": (89.0, 92.0), "keep_zero": (50.0, None)}
    for method, tops in figures.items():
        for seed, top1 in enumerate(tops):
            names = {"images": f"images-{method}{seed}", "quantize": f"quantize-{method}{seed}"}
            records[names["images"]] = done({"kept": 14, "patches": 64})
            if top1 is not None:
                records[names["quantize"]] = done(
                    {"top1": top1, "logit_error": top1 / 1000, "reference_top1": 95.0}
                )
            cell = {
                "model": "digits_vit",
                "dataset": "digits",
                "method": method,
                "bits": "W4/A8",
                "seed": seed,
            }
            cells.append({"cell": cell, "tasks": names})
    return Sheet(
        grid="ablation_deviations",
        title="Deviations",
        experiment="deviations",
        scale="digits",
        table="ablation_deviations",
        about={},
        command="python -m bench.sweep",
        methods={name: {"title": name} for name in figures},
        settings={},
        paper={},
        cells=cells,
        records=records,
    )


def test_the_table_holds_each_row_against_the_text_seed_by_seed():
    lines = [line for line in table.text(made_up_sheet()).splitlines() if line.startswith("|")]
    rows = {
        cells[0]: cells[1:]
        for line in lines[2:]
        if (cells := [c.strip() for c in line.strip("|").split("|")])
    }
    assert rows["by_the_text"] == ["14", "90.50 ± 0.71 (2)", "-", "9.05 ± 0.07 (2)", "-", "95.00"]
    assert rows["eight_bit"] == [
        "14",
        "90.50 ± 2.12 (2)",
        "+0.00 ± 1.41",
        "9.05 ± 0.21 (2)",
        "+0.00 ± 0.14",
        "95.00",
    ]
    assert rows["keep_zero"] == ["14", "50.00 (1), not run", "-40.00", "5.00 (1), not run", "-4.00", "95.00"]


def test_the_page_names_its_scale_and_every_switch():
    page = table.text(made_up_sheet())
    assert page.startswith("# Deviations, digits scale\n") and "Not the paper's models or data" in page
    assert all(f"`{name}`" in page for name in (*OF_INVERSION, *OF_CALIBRATION))


def test_two_data_sets_have_a_table_each():
    page = table.text(doubled(made_up_sheet()))
    for place, top1 in (("digits, W4/A8", "90.50 ± 0.71 (2)"), ("pets, W4/A8", "50.50 ± 0.71 (2)")):
        part = page.partition(f"## digits_vit, {place}")[2].partition("\n## ")[0]
        (row,) = [line for line in part.splitlines() if line.startswith("| by_the_text")]
        assert top1 in row


def test_a_change_says_whether_the_models_are_told_apart_where_their_answers_are_known():
    sheet = made_up_sheet()
    for method, right in (("by_the_text", [True] * 20), ("eight_bit", [False] * 20)):
        for seed in (0, 1):
            made = sheet.records[f"quantize-{method}{seed}"]
            made["metrics"] |= {"pictures": 20, "right": pack(right)}
    for made in sheet.records.values():
        made["settings"] = {"test": "digits"}
    page = table.text(sheet)
    (row,) = [line for line in page.splitlines() if line.startswith("| eight_bit")]
    assert "+0.00 ± 1.41, told apart: 2 of 2" in row and "McNemar" in page
    assert page.count("told apart:") == 1

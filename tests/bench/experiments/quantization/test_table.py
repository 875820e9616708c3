"""Table 3 from made-up records, held to a golden file; holes, statistics, provenance, and tables made again."""

from dataclasses import replace
from pathlib import Path

import published_files
import pytest
from table3_sheet import GOLDEN, GRID, TINY, paper_sheet, quantized, record
from two_datasets import doubled

from bench import publish
from bench.engine.store import Store
from bench.errors import BenchError
from bench.experiments import paper
from bench.experiments.quantization import table as quantization
from bench.grid import load
from bench.publish import manifest
from bench.publish.__main__ import main
from bench.publish.parts import difference, holes, mean_std, status
from bench.tasks.answers import FIELD, pack


def row(text: str, *starts: str) -> list[str]:
    """Cells of the last table row that holds all of `starts`."""
    lines = [line for line in text.splitlines() if line.startswith("|") and all(s in line for s in starts)]
    return [cell.strip() for cell in lines[-1].strip("|").split("|")]


def test_the_table_is_the_golden_one():
    """To change the table on purpose, write the new text into tests/golden/table3.md and look at the difference."""
    assert quantization.text(paper_sheet()) == GOLDEN.read_text(encoding="utf-8")


def test_seeds_are_averaged_and_the_papers_figure_stands_beside():
    cells = row(quantization.text(paper_sheet()), "DeepInversion (sparse)")
    assert cells[2:5] == ["76.5%", "46 of 196", "210.0 ± 14.1 (2)"]
    assert cells[5:9] == ["64.50 ± 0.71 (2)", "64.04", "+0.46", "5.50 ± 0.71 (2) %"]


def test_rows_of_two_data_sets_are_told_apart_and_only_the_papers_is_held_against_its_figures():
    text = quantization.text(doubled(paper_sheet()))
    imagenet, pets = row(text, "(sparse)", "imagenet"), row(text, "(sparse)", "pets")
    assert imagenet[2] == "imagenet" and imagenet[6:9] == ["64.50 ± 0.71 (2)", "64.04", "+0.46"]
    assert pets[2] == "pets" and pets[6:9] == ["24.50 ± 0.71 (2)", "-", "-"]


def test_rows_that_claims_compare_say_whether_their_models_are_told_apart():
    assert "told apart" not in quantization.text(paper_sheet()), "records without answers say nothing"
    sheet = paper_sheet()
    dense = {f"quantize-d{seed}": quantized(f"d{seed}", 60.0 + seed) for seed in (0, 1)}
    records = {**sheet.records, **dense}
    for name in ("quantize-s0", "quantize-s1", *dense):
        right = [name[-2] == "s" or place % 3 > 0 for place in range(60)]
        metrics = {**records[name]["metrics"], "pictures": 60, FIELD: pack(right)}
        records[name] = {**records[name], "metrics": metrics, "settings": {"test": "imagenet"}}
    text = quantization.text(replace(sheet, records=records))
    part = text.partition("### Rows told apart")[2]
    cells = row(part, "DeepInversion (sparse) less DeepInversion (dense)")
    assert cells[2:] == ["+4.00, told apart: 2 of 2", "-"] and "McNemar" in part


def test_a_title_moves_no_column():
    sheet = paper_sheet()
    methods = {**sheet.methods, "gaussian_noise": {**sheet.methods["gaussian_noise"], "title": "W|A\nnoise"}}
    lines = quantization.text(replace(sheet, methods=methods)).splitlines()
    (noise,) = [line for line in lines if line.startswith("|") and "W\\|A noise" in line]
    (real,) = [line for line in lines if "| Real images" in line]
    assert noise.replace("\\|", "").count("|") == real.count("|")


def test_every_hole_is_shown_as_a_hole():
    text = quantization.text(paper_sheet())
    assert row(text, "Real images")[5] == "2 not run"
    assert row(text, "DeepInversion (dense)")[5] == "2 failed: non-finite loss (images)"
    assert "70.00 (1), failed: out of memory" in row(text, "DeepInversion (sparse)")
    assert "7.90 (1), not run" in row(text, "Gaussian noise")


def test_nothing_run_is_a_table_of_holes():
    sheet = replace(paper_sheet(), records={})
    text = quantization.text(sheet)
    assert row(text, "Original")[5:8] == ["not run", "72.14", "-"]
    assert row(text, "DeepInversion (sparse)")[5] == "2 not run"
    assert "hardware: not run" in text


def test_the_cost_half_meets_the_papers_flops_to_the_last_digit():
    text = quantization.text(paper_sheet())
    lines = [line for line in text.splitlines() if "DeepInversion (sparse)" in line]
    cells = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert cells[5:10] == ["107.32 (-74.09%)", "107.32", "0.00", "117.02", "0.2888"]
    assert cells[3] == "not run" and cells[4] == "18.82"


def test_a_measured_cost_stands_where_it_was_measured():
    settings = {
        "model": {"name": TINY},
        "recipe": {"name": "deepinversion"},
        "stopping": {"at": [50, 100, 200, 300], "drop": [0.3] * 4},
        "precision": "fp32",
    }
    engines = {"smi": {"iterations_per_second": 21.5, "memory": {"gpu_mib": 400.4}}}
    costs = {
        f"cost-{batch}": record(
            "cost", str(batch), {"engines": engines}, settings={**settings, "batch": batch}
        )
        for batch in (2, 128)
    }
    lines = quantization.text(replace(paper_sheet(), quoted=costs)).splitlines()
    sparse = next(line for line in lines if "DeepInversion (sparse)" in line)
    assert "| 21.50 (batch 128, Made-up Device)" in sparse and "| 400 (peak, batch 128)" in sparse
    for other in ("DeepInversion (dense)", "control: random selection"):
        assert "| not run" in next(line for line in lines if other in line)


def write(sheet, results: Path) -> Path:
    """A sheet's file, as `manifest.publish` writes it."""
    path = results / sheet.scale / "records" / f"{sheet.grid}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    described = {name: value for name, value in vars(sheet).items() if name not in ("quoted", "costs")}
    described |= {"cells": len(sheet.cells), "records": len(sheet.records)}
    published_files.write(path, described, list(sheet.cells), list(sheet.records.values()))
    return path


def test_costs_come_from_whatever_is_published_and_done(tmp_path):
    costs = {"cost-a": record("cost", "a"), "cost-b": record("cost", "b", cause="out of memory")}
    write(
        replace(paper_sheet(), grid="cost", scale="digits", experiment="cost", cells=[], records=costs),
        tmp_path,
    )
    write(replace(paper_sheet(), records={}), tmp_path)
    found = {sheet.grid: sheet for sheet in manifest.sheets(tmp_path)}
    assert found["cost"].quoted == {} and found["table3"].quoted == {"cost-a": costs["cost-a"]}


def test_a_table_is_written_however_damaged_another_is(tmp_path):
    write(paper_sheet(), tmp_path)
    (tmp_path / "digits" / "records").mkdir(parents=True)
    (tmp_path / "digits" / "records" / "cost.jsonl").write_text("{")
    found, damaged = manifest.readable(tmp_path)
    assert [sheet.grid for sheet in found] == ["table3"] and len(damaged) == 1
    with pytest.raises(BenchError, match=r"cost.jsonl, line 1, is damaged"):
        manifest.sheets(tmp_path)


def test_the_scale_stands_in_the_title():
    assert quantization.text(paper_sheet()).startswith("# Table 3, paper scale: ")


def test_statistics_and_differences():
    assert mean_std([1.0]) == "1.00 (1)"
    assert mean_std([1.0, 2.0, 3.0]) == "2.00 ± 1.00 (3)"
    assert [difference(1.0, 1.004), difference(2.0, 1.0), difference(1.0, 2.5)] == ["0.00", "+1.00", "-1.50"]
    assert difference(None, 1.0) == difference(1.0, None) == "-"
    assert holes(["done", "done"]) == ""
    assert status({}, "quantize", {}) == "not run"


def test_the_papers_figures_are_complete():
    assert [len(paper.rows(table)) for table in ("table1", "table3", "table4")] == [3, 10, 6]
    assert (
        paper.figure("table3", "W8/A8", model="deit_base_patch16_224", method="deepinversion_sparse") == 79.63
    )
    assert paper.figure("table3", "FP", model=TINY, method="original") == 72.14
    assert paper.figure("table4", "cifar10", model=TINY, method="deepinversion_dense") == 69.51
    assert paper.figure("table3", "W8/A8", model=TINY, method="real") is None
    for entry in paper.rows("table3"):
        assert entry["method"] in GRID["methods"]


def test_what_is_published_makes_the_same_table_again(tmp_path):
    sheet = paper_sheet()
    write(sheet, tmp_path)
    assert main(["--results", str(tmp_path)]) == 0
    assert (tmp_path / "paper" / "table3.md").read_text(encoding="utf-8") == quantization.text(sheet)
    index = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "[table3](paper/table3.md)" in index and "Made-up Device" in index and "0123456789ab" in index


def test_publishing_keeps_machines_private(tmp_path, table3_store):
    grid, cells, store = table3_store
    path = publish.render(grid, "digits", cells, store, tmp_path, {"command": "made up"})
    assert path == tmp_path / "digits" / "table3.md"
    (file,) = (tmp_path / "digits" / "records").iterdir()
    _, _, records = published_files.lines(file)
    assert [f"{one['kind']}-{one['key']}" for one in records] == [cells[0].tasks["evaluate"].name]
    shown = file.read_text(encoding="utf-8")
    assert "secret-host" not in shown and "/home/someone" not in shown
    assert "| Original (full precision)" in path.read_text(encoding="utf-8")


@pytest.fixture
def table3_store(tmp_path):
    """The real grid's first cell and a store with a made-up record of it."""
    from bench import experiments
    from bench.engine.task import Sources

    grid = load(Path(__file__).parents[4] / "experiments" / "table3.yaml")
    cells = experiments.build(grid, "digits", Sources())[:1]
    store = Store(tmp_path / "store")
    store.prepare()
    task = cells[0].tasks["evaluate"]
    claim = store.claims.take(task.name)
    work = store.open_work(task, claim)
    made = record(
        "evaluate", task.key, {"top1": 97.0, "pictures": 540}, host="secret-host", log="/home/someone/log"
    )
    store.finish(task, claim, work, made)
    claim.release()
    return grid, cells, store


def test_a_quantizer_has_rows_of_its_own_and_no_figure_of_the_paper():
    sheet = paper_sheet()
    both = [
        {**entry, "cell": {**entry["cell"], "quantizer": name}}
        for entry in sheet.cells
        for name in ("psaq", "repq")
    ]
    text = quantization.text(replace(sheet, cells=both))
    accuracy = text.partition("## Data-free quantization")[2].splitlines()
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in accuracy if line.startswith("|")]
    head, sparse = rows[0], [row for row in rows if row[1] == "DeepInversion (sparse)"]
    at = {name: head.index(name) for name in ("quantizer", "W4/A8 paper", "W4/A8 difference")}
    assert [row[at["quantizer"]] for row in sparse] == ["psaq", "repq"]
    assert [row[at["W4/A8 paper"]] for row in sparse] == ["64.04", "-"]
    assert sparse[1][at["W4/A8 difference"]] == "-"
    assert len([row for row in rows if row[1] == "Original (full precision)"]) == 1

"""Four bits: the tasks that its grid plans, its page from made-up records, and what stands beside published figures."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml_text

from bench.engine.task import Sources
from bench.errors import BenchError
from bench.experiments import EXPERIMENTS, build, paper
from bench.experiments.builders.quantization import QUANTIZER
from bench.experiments.four_bits import published, table
from bench.experiments.four_bits.block import blocks
from bench.grid import load
from bench.publish.manifest import Sheet
from bench.tasks.answers import FIELD, pack
from smi.quantization import QUANTIZERS

GRIDS = Path(__file__).parents[4] / "experiments"
GRID = yaml_text.read(GRIDS / "four_bits.yaml")
TINY, SMALL, BASE = (f"deit_{size}_patch16_224" for size in ("tiny", "small", "base"))
MADE = {
    "status": "done",
    "device": "Made-up Device",
    "device_type": "cpu",
    "commit": "0123456789abcdef",
    "dirty": None,
    "versions": {"python": "3.12.0"},
    "finished": "2026-01-02T03:04:05+00:00",
    "seconds": 10.0,
    "settings": {"test": "the same"},
}
PICTURES = 200


def record(kind: str, key: str, **metrics) -> dict:
    return {**MADE, "kind": kind, "key": key, "metrics": metrics}


def scored(kind: str, key: str, right: int, **metrics) -> dict:
    """A record of a model that answers the first `right` pictures."""
    bits = pack([place < right for place in range(PICTURES)])
    return record(kind, key, top1=100 * right / PICTURES, pictures=PICTURES, **{FIELD: bits}, **metrics)


# quantizer -> source -> pictures answered right at W4/A4, one for each seed; in full precision 190 of 200
RIGHT = {
    "psaq": {"gaussian_noise": [150, 154], "real": [160, 160], "deepinversion_dense": [140, 142]},
    "repq": {"gaussian_noise": [170, 172], "real": [189, 191], "deepinversion_dense": [186, 188]},
}


def sheet(model: str = "digits_vit", dataset: str = "digits", scale: str = "digits") -> Sheet:
    records = {"evaluate-e": scored("evaluate", "e", 190)}
    cells = []
    for quantizer, sources in RIGHT.items():
        where = {"model": model, "dataset": dataset, "bits": "W4/A4", QUANTIZER: quantizer}
        for seed in (0, 1):
            cells.append(
                {"cell": {**where, "method": "original", "seed": seed}, "tasks": {"evaluate": "evaluate-e"}}
            )
        for source, counts in sources.items():
            for seed, right in enumerate(counts):
                tasks = {
                    "images": f"images-{source}{seed}",
                    "quantize": f"quantize-{quantizer}{source}{seed}",
                }
                made = {"seconds": 8.0 + seed} if "inversion" in source else {}
                records[tasks["images"]] = record("images", source + str(seed), **made)
                records[tasks["quantize"]] = scored(
                    *("quantize", tasks["quantize"], right),
                    agreement=90.0 + seed,
                    logit_error=0.1,
                    calibration_seconds=2.0 if quantizer == "repq" else 0.5,
                )
                cells.append({"cell": {**where, "method": source, "seed": seed}, "tasks": tasks})
    spec = GRID["scales"][scale]
    return Sheet(
        *("four_bits", GRID["title"], "four_bits", scale, "four_bits", spec["about"], "made up"),
        *(GRID["methods"], spec["settings"], {}, cells, records),
    )


def part(text: str, title: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    lines = text.partition(f"{title}\n\n")[2].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_grid_is_sources_by_quantizers_by_bits_by_five_seeds_at_every_scale():
    grid = load(GRIDS / "four_bits.yaml")
    for scale in ("digits", "cifar", "paper"):
        axes = grid.scale(scale).axes
        assert set(axes[QUANTIZER]) == {"psaq", "minmax_inputs", "percentile_inputs", "mse_inputs", "repq"}
        assert set(axes["bits"]) == {"W8/A8", "W4/A8", "W6/A6", "W4/A4"} and len(axes["seed"]) == 5
        assert {"gaussian_noise", "real", "psaq_dense", "random_selection"} < set(axes["method"])
    assert set(grid.scale("paper").axes["model"]) == {TINY, SMALL, BASE}


def test_teachers_images_and_the_papers_quantizer_are_table_3s_own_tasks():
    ours, theirs = (
        {
            tuple(entry.cell[axis] for axis in ("method", "bits", "seed")): entry.tasks
            for entry in build(load(GRIDS / f"{name}.yaml"), "digits", Sources())
            if entry.cell.get(QUANTIZER, "psaq") == "psaq"
        }
        for name in ("four_bits", "table3")
    )
    shared = ours.keys() & theirs.keys()
    assert len(shared) == 7 * 2 * 3  # sources and full precision, W4/A8 and W8/A8, seeds
    for place in shared:
        assert {name: task.key for name, task in ours[place].items()} == {
            name: task.key for name, task in theirs[place].items()
        }


def test_a_grid_without_the_axis_is_refused():
    with pytest.raises(BenchError, match="the axis 'quantizer' is missing"):
        grid = load(GRIDS / "table3.yaml")
        build(grid.model_copy(update={"experiment": "four_bits"}), "digits", Sources())


def test_each_source_stands_under_each_quantizer_and_the_best_that_needs_no_data_is_named():
    text = table.text(sheet())
    assert part(text, "### W4/A4: top-1 (%)") == [
        ["Gaussian noise", "76.00 ± 1.41 (2)", "85.50 ± 0.71 (2)"],
        ["Real images", "80.00 ± 0.00 (2)", "95.00 ± 0.71 (2)"],
        ["DeepInversion (dense)", "70.50 ± 0.71 (2)", "93.50 ± 0.71 (2)"],
    ]
    assert [row[1:] for row in part(text, "## Best data-free rows")] == [
        ["W4/A4", "psaq", "Gaussian noise", "76.00 ± 1.41 (2)", "-19.00 (2), told apart: 2 of 2"],
        ["W4/A4", "repq", "DeepInversion (dense)", "93.50 ± 0.71 (2)", "-1.50 (2), told apart: 0 of 2"],
    ]
    assert "Full precision: 95.00% top-1." in text
    assert part(text, "#### W4/A4: Relative logit error (%)")[0][1] == "10.00 ± 0.00 (2)"
    assert part(text, "#### W4/A4: Agreement with full precision (%)")[0][1] == "90.50 ± 0.71 (2)"


def test_rows_are_told_apart_within_one_quantizer():
    text = table.text(sheet())
    below_noise = part(text, "### Top-1 less that of gaussian noise")
    assert below_noise[1] == [
        *("W4/A4", "DeepInversion (dense)"),
        *("-5.50 (2), told apart: 2 of 2", "+8.00 (2), told apart: 2 of 2"),
    ]
    below_real = part(text, "### Top-1 less that of real images")
    assert below_real[1][3] == "-1.50 (2), told apart: 0 of 2"


def test_what_it_costs():
    costs = part(table.text(sheet()), "### What it costs")
    assert costs[0] == ["Gaussian noise", "-", "0.50 ± 0.00 (2)", "2.00 ± 0.00 (2)"]
    assert costs[2][1] == "8.5 ± 0.7 (2)"


def test_holes_are_holes_and_a_row_with_fewer_seeds_is_not_the_best():
    whole = sheet()
    kept = {name: r for name, r in whole.records.items() if name != "quantize-repqdeepinversion_dense1"}
    text = table.text(replace(whole, records=kept))
    assert part(text, "### W4/A4: top-1 (%)")[2][2] == "93.00 (1), not run"
    assert part(text, "## Best data-free rows")[1][3] == "Gaussian noise"
    empty = table.text(replace(whole, records={}))
    assert part(empty, "## Best data-free rows")[0][3:] == ["not run", "-", "-"]
    assert "Full precision: not run top-1." not in empty and "hardware: not run" in empty


def test_published_figures_name_their_quantizer_and_ours_stands_beside_the_same_one_only():
    (block,) = blocks(sheet(TINY, "imagenet", "paper"))
    rows = published.rows(block)
    assert all(row["quantizer"] and row["bits"] == "W4/A4" for row in rows)
    beside = {row["method"]: row for row in rows if row["ours"] != "-"}
    assert list(beside) == ["Real images"]
    assert beside["Real images"]["quantizer"] == "repq" and beside["Real images"]["from"] == "RepQ-ViT"
    assert (beside["Real images"]["published"], beside["Real images"]["difference"]) == ("57.43", "+37.57")
    others = {(row["method"], row["quantizer"]): row["published"] for row in rows}
    assert others["PSAQ-ViT", "that of MaskAQ's table"] == "19.61"
    assert others["PSAQ-ViT", "that of the other table"] == "47.75"
    assert others["ERQ", "its own"] == "61.79"
    assert "Published figures" not in table.text(sheet())


def test_every_published_figure_of_a_grids_method_names_a_quantizer_that_exists():
    found = [row for row in paper.rows("others") if "quantizer" in row]
    assert {row["model"] for row in found} == {TINY, SMALL, BASE}
    for row in found:
        assert ("method" in row) != ("title" in row)
        assert any(bits in row for bits in ("W4/A4", "W6/A6", "W4/A8", "W8/A8"))
        if "method" in row:
            assert row["method"] in GRID["methods"] and row["quantizer"] in QUANTIZERS
        else:
            assert row["quantizer"] not in QUANTIZERS


def test_the_experiment_is_registered():
    assert EXPERIMENTS["four_bits"].table.endswith("four_bits.table:text")

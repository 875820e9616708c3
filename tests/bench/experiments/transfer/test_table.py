"""Table 4 and the convergence figure from records alone: paper's figures beside ours, holes, seeds, controls."""

import pytest
from PIL import Image

from bench import publish
from bench.engine.provenance import ROOT
from bench.experiments.transfer import figure as convergence
from bench.experiments.transfer.table import text
from bench.grid import load
from bench.publish import figures
from bench.publish.figures.material import Material, NotMade
from bench.publish.manifest import Sheet

METHODS = {
    "teacher": {"title": "Teacher", "source": "none"},
    "deepinversion_dense": {"title": "DeepInversion (dense)", "source": "inversion"},
    "deepinversion_sparse": {"title": "DeepInversion (sparse)", "source": "inversion"},
    "noise_random_patches": {
        "title": "control: noise, random patches",
        "source": "noise",
        "shown": "sparse77",
    },
}
TINY = "deit_tiny_patch16_224"


def record(kind, name, metrics, settings=None, **fields):
    origin = {
        "device": "Test CPU",
        "device_type": "cpu",
        "versions": {"torch": "2"},
        "commit": "c" * 40,
        "finished": "2026-01-01T00:00:00+00:00",
        "seconds": 2.0,
    }
    return {
        "kind": kind,
        "key": name,
        "label": name,
        "status": "done",
        "settings": settings or {},
        "metrics": metrics,
    } | (origin | fields)


def make_sheet(scale="paper", model=TINY, datasets=("cifar10", "cifar100"), seeds=(0, 1), top1=None) -> Sheet:
    """Every cell done: sparse 88 and 90, dense 70 and 72, the control 85 and 87, teacher 91."""
    top1 = {"deepinversion_sparse": 88.0, "deepinversion_dense": 70.0, "noise_random_patches": 85.0} | (
        top1 or {}
    )
    cells, records = [], {}
    for dataset in datasets:
        for method in METHODS:
            for seed in seeds:
                cell = {"model": model, "dataset": dataset, "method": method, "pool": "few", "seed": seed}
                if method == "teacher":
                    name = f"evaluate-{dataset}"
                    records[name] = record("evaluate", name, {"top1": 91.0, "pictures": 1000})
                    cells.append({"cell": cell, "tasks": {"evaluate": name}})
                    continue
                names = {"transfer": f"transfer-{dataset}-{method}-{seed}"}
                seconds = {} if METHODS[method]["source"] == "noise" else {"seconds": 10.0 + seed}
                for index in range(2):
                    names[f"images_{index}"] = f"images-{dataset}-{method}-{seed}-{index}"
                    records[names[f"images_{index}"]] = record("images", names[f"images_{index}"], seconds)
                final = top1[method] + 2 * seed
                metrics = {
                    "top1": final,
                    "seconds": 5.0,
                    "images": 20,
                    "kept": 196 if method.endswith("dense") else 46,
                    "patches": 196,
                    "pictures": 1000,
                    "curve": [
                        {"step": step, "loss": None, "pool": 20, "top1": final * step / 10}
                        for step in (0, 5, 10)
                    ],
                }
                records[names["transfer"]] = record("transfer", "x", metrics, {"transfer": {"steps": 10}})
                cells.append({"cell": cell, "tasks": names})
    pools = {"few": {"rounds": 2, "images": 10, "steps": 5, "batch_size": 4}}
    return Sheet(
        *("kd", "Knowledge transfer", "transfer", scale, "table4"),
        load(ROOT / "experiments" / "kd.yaml").scale(scale).about.model_dump(),
        "python -m bench.sweep",
        METHODS,
        {"pools": pools},
        {},
        cells,
        records,
    )


def row(page: str, title: str) -> list[str]:
    line = next(line for line in page.splitlines() if line.startswith("|") and title in line)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_rows_are_methods_with_the_papers_figure_and_the_difference():
    page = text(make_sheet())
    assert page.startswith("# Table 4, paper scale: knowledge transfer")
    assert "## DeiT/16-Tiny, pool `few`: 2 rounds of 10 images and 5 steps of 4" in page
    assert row(page, "DeepInversion (sparse)") == [
        *("DeepInversion (sparse)", "46 of 196"),
        *("89.00 ± 1.41 (2)", "90.08", "-1.08"),
        *("89.00 ± 1.41 (2)", "70.48", "+18.52"),
        *("20", "10", "21.0 ± 1.2 (4)", "5.0 ± 0.0 (4)"),
    ]
    assert row(page, "Teacher")[2:5] == ["91.00 (1)", "90.23", "+0.77"]
    control = row(page, "control: noise")
    assert control[2:5] == ["86.00 ± 1.41 (2)", "-", "-"] and control[-2:] == ["-", "5.0 ± 0.0 (4)"]
    assert "perhaps a digit" in page and "`affordable` is not" in page


def test_seconds_of_images_are_of_the_whole_pool():
    page = text(make_sheet(datasets=("cifar10",)))
    assert row(page, "(sparse)")[-2] == "21.0 ± 1.4 (2)", "two sets of 10 s, and two of 11 s"


def test_at_another_scale_no_figure_of_the_paper_is_shown():
    page = text(make_sheet("digits", "digits_vit", ("digits",)))
    assert "**Scale: digits**" in page and "90.08" not in page and "paper |" not in page
    assert "One of the 1000 test pictures is 0.10 points" in page


def test_the_page_says_what_was_measured_against_the_controls():
    page = text(make_sheet("digits", "digits_vit", ("digits",)))
    assert "sparse is +18.0 over `DeepInversion (dense)`, +3.0 over `control: noise, random patches`" in page
    worse = text(make_sheet("digits", "digits_vit", ("digits",), top1={"deepinversion_sparse": 60.0}))
    assert "sparse is -10.0 over `DeepInversion (dense)`, -25.0 over" in worse


def test_holes_are_shown_as_holes():
    sheet = make_sheet()
    del (
        sheet.records["transfer-cifar10-deepinversion_dense-0"],
        sheet.records["transfer-cifar10-deepinversion_dense-1"],
    )
    del sheet.records["transfer-cifar10-deepinversion_sparse-1"]
    failed = sheet.records["transfer-cifar100-deepinversion_sparse-0"]
    failed |= {"status": "failed", "error": {"cause": "non-finite loss", "message": ""}}
    page = text(sheet)
    assert row(page, "(dense)")[2] == "2 not run"
    assert row(page, "(sparse)")[2] == "88.00 (1), not run"
    assert row(page, "(sparse)")[5] == "90.00 (1), failed: non-finite loss"
    empty = Sheet(**{**vars(sheet), "records": {}})
    assert "not run" in row(text(empty), "(sparse)")[2]


def test_the_file_bears_the_papers_name_of_the_table(tmp_path):
    (tmp_path / "paper").mkdir()
    path = publish.write(make_sheet(), tmp_path)
    assert path == tmp_path / "paper" / "table4.md" and path.read_text(encoding="utf-8").startswith(
        "# Table 4"
    )


def test_the_convergence_figure_is_drawn_from_records_and_twice_the_same(tmp_path):
    material = Material(
        "digits", {"kd": make_sheet("digits", "digits_vit", ("digits",), seeds=(0, 1, 2))}, tmp_path
    )
    contents = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        outcome = figures.draw(convergence.FIGURE, material, tmp_path / place)
        assert not outcome.missing and "3 seeds" in outcome.caption
        contents.append([(tmp_path / place / name).read_bytes() for name in outcome.files])
    assert contents[0] == contents[1]
    assert Image.open(tmp_path / "one" / "convergence.png").width > 600


def test_lines_are_means_over_seeds_and_bands_their_spread(tmp_path):
    sheet = make_sheet("digits", "digits_vit", ("digits",))
    canvas = convergence.draw(Material("digits", {"kd": sheet}, tmp_path)).canvas
    axes = canvas.axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    sparse = lines["DeepInversion (sparse)"]
    assert list(sparse.get_xdata()) == [0, 5, 10] and list(sparse.get_ydata()) == [0, 44.5, 89]
    assert set(lines["Teacher"].get_ydata()) == {91.0}
    band = axes.collections[1].get_paths()[0].vertices  # of the second method, sparse
    assert band[:, 1].max() == pytest.approx(89 + 2**0.5)


def test_whatever_methods_are_called_a_figure_draws_them(tmp_path):
    sheet = make_sheet("digits", "digits_vit", ("digits",))
    names = {"deepinversion_dense": "costs $5, or $6", "deepinversion_sparse": "_sparse", "teacher": "a\nb"}
    for method, title in names.items():
        sheet.methods[method] = {**sheet.methods[method], "title": title}
    outcome = figures.draw(convergence.FIGURE, Material("digits", {"kd": sheet}, tmp_path), tmp_path)
    assert not outcome.missing
    axes = convergence.draw(Material("digits", {"kd": sheet}, tmp_path)).canvas.axes[0]
    assert {"costs \\$5, or \\$6", " _sparse"} <= set(axes.get_legend_handles_labels()[1])


def test_two_pools_and_two_data_sets_are_never_one_row():
    sheet = make_sheet("digits", "digits_vit", ("digits",))
    cells = [*sheet.cells, *({**e, "cell": {**e["cell"], "epochs": 7}} for e in sheet.cells)]
    page = text(Sheet(**{**vars(sheet), "cells": cells}))
    assert page.count("\n## digits_vit, pool `few`") == 2 and ", epochs 7" in page


def test_without_records_the_figure_names_the_command(tmp_path):
    with pytest.raises(NotMade, match=r"bench.sweep --grid experiments/kd.yaml --scale digits"):
        convergence.draw(Material("digits", {}, tmp_path))

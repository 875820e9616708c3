"""From grids to figures and the report, by the commands that README gives."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import published_files
import pytest
import small_results
import timm
import vision_data
import yaml_text
from PIL import Image
from safetensors.torch import save_file

from bench import sweep
from bench.publish.figures.__main__ import main as draw
from bench.publish.report.__main__ import main as report

pytestmark = pytest.mark.slow
PICTURES = {
    "inversion.gif",
    "trajectory.png",
    "importance.png",
    "classes.png",
    "patch_sizes.png",
    "looks.png",
}
PLOTS = {f"{name}.{kind}" for name in ("loss", "sparsity", "seconds") for kind in ("png", "svg")}
SELECTED = {f"{name}.{kind}" for name in ("kept", "agreement") for kind in ("png", "svg")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(store, results) with tables, records and figures."""
    store, results = small_results.make(tmp_path_factory.mktemp("suite"))
    assert draw(["--store", str(store), "--results", str(results)]) == 0
    return store, results


@pytest.fixture
def drawn(made: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """(store, results) of one's own."""
    return shutil.copytree(made[0], tmp_path / "runs"), shutil.copytree(made[1], tmp_path / "results")


def files(results: Path) -> set[str]:
    return {path.name for path in (results / "digits" / "figures").iterdir()}


def test_every_figure_with_records_is_drawn_and_the_rest_is_named(drawn):
    results = drawn[1]
    assert files(results) >= PICTURES | PLOTS | SELECTED
    assert {f"{name}.csv" for name in ("loss", "sparsity", "seconds", "kept", "agreement", "looks")} <= files(
        results
    )
    index = json.loads((results / "digits" / "figures" / "figures.json").read_text())
    entries = {entry["name"]: entry for entry in index["figures"]}
    records = {
        f"{record['kind']}-{record['key']}"
        for path in (results / "digits" / "records").glob("*.jsonl")
        for record in published_files.lines(path)[2]
    }
    for entry in entries.values():
        assert bool(entry["files"]) != bool(entry["missing"])
        for source in entry["sources"]:
            assert set(source["records"]) <= records and source["records"]
    assert "python -m bench.sweep --grid experiments/kd.yaml" in entries["convergence"]["missing"]
    page = (results / "digits" / "figures" / "README.md").read_text()
    for link in re.findall(r"\]\(([^)]+)\)", page):
        assert (results / "digits" / "figures" / link).exists(), link


def test_pictures_are_as_wide_as_a_readme_wants_them_and_move(drawn):
    folder = drawn[1] / "digits" / "figures"
    for name in PICTURES | {plot for plot in PLOTS if plot.endswith(".png")}:
        with Image.open(folder / name) as image:
            assert 600 <= image.width <= 1200, name
    with Image.open(folder / "inversion.gif") as moving:
        assert moving.n_frames == len({0, *small_results.STOPS, 10, small_results.ITERATIONS})


def test_the_same_records_give_the_same_bytes(drawn):
    store, results = drawn
    folder = results / "digits" / "figures"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert draw(["--store", str(store), "--results", str(results)]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_without_the_images_only_what_records_show_is_drawn(drawn, capsys):
    store, results = drawn
    assert draw(["--store", str(store / "elsewhere"), "--results", str(results)]) == 0
    assert files(results) & (PICTURES | PLOTS) == PLOTS
    assert "does not hold the images" in capsys.readouterr().out


def test_a_damaged_image_file_is_noticed_and_not_drawn(drawn, capsys):
    store, results = drawn
    for path in store.glob("artifacts/*/images-*/images.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    assert draw(["--grid", "experiments/figures.yaml", "--store", str(store), "--results", str(results)]) == 0
    assert files(results) & PICTURES == {"looks.png"}
    assert PLOTS <= files(results), "figures that this grid does not feed are left alone"


def test_the_report_holds_tables_figures_and_links_that_lead_somewhere(drawn, capsys):
    folder = drawn[1] / "digits"
    assert report([str(folder)]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<img ") == len(PICTURES) + len(PLOTS | SELECTED) // 2
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page), "the page needs no network"
    assert page.count("<script") == 1, "its own, which sorts and filters"
    for link in re.findall(r'href="([^"#][^"]*)"', page):
        assert link.startswith("data:") or (folder / link).exists(), link
    for anchor in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{anchor}"' in page, anchor
    for table in ("table3", "ablation_sparsity", "ablation_iterations", "figures"):
        assert f'id="table-{table}"' in page
    assert "experiments/kd.yaml" in page, "what was not made is said"


def test_a_report_without_figures_and_of_a_half_finished_sweep_is_made_all_the_same(drawn):
    folder = drawn[1] / "digits"
    shutil.rmtree(folder / "figures")
    for path in folder.glob("records/*.jsonl"):
        published_files.change_records(path, lambda record: None if record["kind"] == "quantize" else record)
    assert report([str(folder)]) == 0
    assert "None were drawn" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_papers_scale_is_drawn_by_the_same_commands(tmp_path):
    """Random weights and made-up pictures, outside the repository: only that it runs and is drawn in colour."""
    grid = small_results.read("figures")
    scale = grid["scales"]["paper"]
    models = ["deit_tiny_patch16_224", "vit_small_patch32_224"]
    scale["axes"]["model"] = models
    scale["exclude"] = [{"model": models[1], "method": "real"}]
    scale["settings"] |= {"targets": [1, 207], "class_names": ["goldfish", "retriever"], "snapshots": [5]}
    scale["settings"]["images"]["count"] = 2
    scale["settings"]["recipes"]["deepinversion"]["iterations"] = 6
    scale["settings"]["schedules"]["sparse77"]["at"] = [1, 2, 3, 4]
    (tmp_path / "figures.yaml").write_text(yaml_text.dump(grid), encoding="utf-8")
    pictures = vision_data.folders(
        tmp_path / "imagenet", ("val", "train"), ("n01443537", "n02099601"), each=2
    )
    (tmp_path / "checkpoints").mkdir()
    for model in models:
        save_file(timm.create_model(model).state_dict(), tmp_path / "checkpoints" / f"{model}.safetensors")
    folders = ["--store", f"{tmp_path}/runs", "--results", f"{tmp_path}/results"]
    sources = ["--imagenet", str(pictures), "--checkpoints", f"{tmp_path}/checkpoints", "--device", "cpu"]
    options = [
        "--grid",
        f"{tmp_path}/figures.yaml",
        "--scale",
        "paper",
        "--allow-cpu",
        "--executor",
        "serial",
    ]
    assert sweep.main([*options, *sources, *folders, "--quiet"]) == 0
    assert draw(["--scale", "paper", *folders]) == 0
    drawn = tmp_path / "results" / "paper" / "figures"
    of_table3 = {"looks.png"}  # which is not run here
    assert {path.name for path in drawn.iterdir()} >= PICTURES - of_table3
    with Image.open(drawn / "classes.png") as image:
        red, green, blue = image.convert("RGB").split()
        assert red.tobytes() != green.tobytes() != blue.tobytes()
    assert report([f"{tmp_path}/results/paper"]) == 0
    assert "goldfish" in (drawn.parent / "records" / "figures.jsonl").read_text(encoding="utf-8")

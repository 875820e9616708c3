"""Costs: what a measurement says, how grids of costs become tasks and pages. Counts and figures, never a time."""

import published_files
import pytest
from small_costs import GRID, load, request_of

import smi
from bench import experiments, grid, publish
from bench.engine.store import Store
from bench.engine.task import Sources
from bench.engine.worker import run_task
from bench.errors import BenchError
from bench.experiments.cost import goals
from bench.experiments.cost import table as cost_table
from bench.experiments.cost.table import slug
from bench.publish import manifest
from bench.tasks.measurement.measure import measure


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_engines_take_turns_and_every_repetition_is_handed_back(precision):
    answer = measure(request_of(precision=precision))
    assert {name: len(seconds) for name, seconds in answer["seconds"].items()} == {
        "smi": 4,
        "reference": 4,
        "smi_dense": 4,
        "reference_dense": 4,
    }
    assert len(answer["stages"]) == 2
    assert set(answer["parts"]) == {"forward", "backward", "pixels", "optimiser"}
    assert answer["matmul_gmacs_per_second"] > 0
    assert all(seconds > 0 for found in answer["seconds"].values() for seconds in found)


def test_memory_counts_what_is_saved_for_backward():
    ours, published, dense = (
        measure(request_of(what="memory", engines=[engine]))["saved_mib"]
        for engine in ("smi", "reference", "smi_dense")
    )
    assert 0 < ours < published
    assert ours < dense


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("what", ["time", "memory"])
def test_costs_are_measured_on_each_device(device, what):
    answer = measure(request_of(device=device, what=what, engines=["smi", "reference"]))
    figures = answer["seconds"]["smi"] if what == "time" else answer.values()
    assert figures and all(figure >= 0 for figure in figures)


@pytest.mark.slow
def test_a_compiled_engine_is_measured_beside_the_eager_one():
    answer = measure(request_of(mode="compile", engines=["smi", "smi_eager"], stages=[]))
    assert {name: len(seconds) for name, seconds in answer["seconds"].items()} == {"smi": 4, "smi_eager": 4}
    assert set(answer["parts"]) == {"forward", "backward", "pixels", "optimiser"} and answer["stages"] == []


def test_cuda_graphs_are_not_measured_on_a_cpu():
    with pytest.raises(smi.InvalidSetting, match=r"^cuda_graphs needs a CUDA device; this is cpu$"):
        measure(request_of(mode="cuda_graphs", engines=["smi"]))


def test_an_eager_cell_is_the_task_that_it_was_before_engines(tmp_path):
    """Costs are looked up by their settings, so these gain a key only where the engine is another."""
    with_engines = GRID.replace("precision: [fp32]", "precision: [fp32]\n      engine: [eager, compile]")
    before = experiments.build(load(tmp_path), "digits", Sources())
    after = experiments.build(load(tmp_path, with_engines), "digits", Sources())
    eager, compiled = (
        [cell for cell in after if cell.cell["engine"] == name] for name in ("eager", "compile")
    )
    assert [cell.tasks["cost"].key for cell in eager] == [cell.tasks["cost"].key for cell in before]
    assert len({cell.tasks["cost"].key for cell in after}) == 4
    assert compiled[1].tasks["cost"].settings["beside"] == ["smi_eager", "reference", "reference_dense"]


def done(method: str, batch: int, device_type: str, **metrics) -> dict:
    """A record of the sparse or dense Base in half precision on a device, as the table reads it."""
    cell = {"model": "deit_base_patch16_224", "method": method, "batch": batch, "precision": "bf16"}
    patches = 46 if method.endswith("sparse") else None
    return {
        "cell": cell,
        "device_type": device_type,
        "settings": {"recipe": {"name": "deepinversion"}, "model": {"name": cell["model"]}},
        "metrics": {"stages": [{"patches": patches}], **metrics},
    }


def rows_of(table: str) -> dict[str, list[str]]:
    lines = [[part.strip() for part in line.strip("| ").split("|")] for line in table.splitlines()[2:]]
    return {line[0]: line[1:] for line in lines}


def test_goals_that_nothing_was_measured_for_stand_as_not_run():
    rows = rows_of(goals.goals([], gpu=True))
    wanted = {what: row[-2] for what, row in rows.items() if row[-2] != "-"}
    assert wanted == {
        "published sparse over our sparse, last stage": ">= 1.40 fp32; >= 10.00 bf16",
        "published dense over our sparse Base, last stage": ">= 6.00 fp32; >= 40.00 bf16",
        "published dense over our sparse Tiny, last stage": ">= 6.00 fp32; >= 30.00 bf16",
        "our dense Base over a plain matmul, in GMAC/s": ">= 50% bf16",
        "PSAQ-ViT as published over ours": ">= 10.00 bf16",
        "images/s over a run, rebirth of 4 parts over sparse at 77%": ">= 1.50 fp32; >= 1.50 bf16",
    }
    assert all(row[4] == row[-1] == "not run" for row in rows.values())


def test_goals_of_a_gpu_are_held_against_its_measurements():
    engines = {
        "smi": {"median": 0.5, "images_per_second": 1000.0, "memory": {"gpu_mib": 10.0}},
        "reference": {"median": 6.0, "memory": {"gpu_mib": 25.0}},
        "reference_dense": {"median": 19.0},
    }
    sparse = done("deepinversion_sparse", 128, "gpu", engines=engines)
    dense = done("deepinversion_dense", 128, "gpu", engines=engines, matmul_gmacs_per_second=60000.0)
    of_another_batch = done(
        "deepinversion_sparse", 32, "gpu", engines={**engines, "reference": {"median": 50.0}}
    )
    rows = rows_of(goals.goals([of_another_batch, sparse, dense], gpu=True))
    assert rows["published sparse over our sparse, last stage"][4] == "12.00"
    assert rows["published sparse over our sparse, last stage"][-2:] == [">= 10.00", "yes"]
    assert rows["published dense over our sparse Base, last stage"][-2:] == [">= 40.00", "no"]
    in_fp32 = {**sparse, "cell": {**sparse["cell"], "precision": "fp32"}}
    rows = rows_of(goals.goals([in_fp32, dense], gpu=True))
    assert rows["published dense over our sparse Base, last stage"][-2:] == [">= 6.00", "yes"]
    assert rows["our dense Base over a plain matmul, in GMAC/s"][-1] == "yes"
    assert rows["memory: published sparse over our sparse, last stage"][4] == "2.50"


def test_rebirth_is_held_against_sparse_of_the_same_place_by_its_finished_images():
    """A trajectory of 4 parts costs 1 + 3/4 + 2/4 + 1/4 of a dense quarter: .156 a finished image, sparse .25."""

    def of(method: str, images: float, gflops: float, stopping: dict | None, **cell) -> dict:
        metrics = {
            "engines": {},
            "finished_images_per_second": images,
            "paper_gflops_run_average": gflops,
        }
        record = done(method, 4, "cpu", **metrics)
        record["settings"] |= {"stopping": stopping}
        return {**record, "cell": {**record["cell"], **cell}}

    sparse = of("deepinversion_sparse", 2.0, 25.0, {"at": [1], "drop": [0.5]})
    elsewhere = of("deepinversion_sparse", 9.0, 25.0, {"at": [1], "drop": [0.5]}, precision="fp32")
    rebirth = of("rebirth4", 3.5, 62.5, {"rebirth": 4, "at": [1, 2, 3]})
    what = "images/s over a run, rebirth of 4 parts over sparse at 77%"
    table = goals.goals([elsewhere, sparse, rebirth], gpu=False)
    assert rows_of(table)[what][4:] == ["1.75", "1.60", ">= 1.50", "yes"]
    assert rows_of(goals.goals([elsewhere, rebirth], gpu=False))[what][-1] == "not run"


@pytest.mark.slow
def test_cells_become_tasks_records_and_pages(tmp_path):
    loaded, store = load(tmp_path), Store(tmp_path / "runs")
    store.prepare()
    cells = experiments.build(loaded, "digits", Sources())
    for cell in cells:
        assert run_task(store, cell.tasks["cost"]).status == "done"
    sparse = store.record(cells[1].tasks["cost"])["metrics"]
    assert [(stage["patches"], stage["iterations"]) for stage in sparse["stages"]] == [
        (None, 20),
        (32, 20),
        (16, 60),
    ]
    run = sum(stage["seconds"] for stage in sparse["stages"])
    assert sparse["average_iterations_per_second"] == pytest.approx(100 / run)
    assert sparse["paper_gflops"] == pytest.approx(128 * sparse["paper_gflops_per_image"])
    assert "memory" in sparse["engines"]["reference"] and "memory" not in sparse["engines"]["reference_dense"]

    page = publish.render(loaded, "digits", cells, store, tmp_path / "results", {"command": "x"})
    (own,) = (tmp_path / "results" / "cost").glob("*.md")
    assert own.name in page.read_text(encoding="utf-8")
    text = own.read_text(encoding="utf-8")
    assert "PSAQ-ViT (dense)" in text and "published dense over our sparse" in text
    assert "On a GPU" in text and "not run" in text

    # records of another device have a page of their own and change nothing on this one
    devices = iter(["Another (R) Device"])  # of the first record
    published = tmp_path / "results" / "digits" / "records" / "tiny.jsonl"
    published_files.change_records(
        published, lambda record: {**record, "device": next(devices, record["device"])}
    )
    (again,) = manifest.sheets(tmp_path / "results")
    assert sorted(path.name for path in cost_table.pages(again)) == sorted(["another-device.md", own.name])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("precision: [fp32]", "precision: [fp8]", "unknown precision 'fp8'"),
        ("batch: [2]", "batch: [0]", "0 is no batch"),
        ("resolution: [32]", "resolution: [224]", "digits_vit takes 32 pixels a side, not 224"),
        (
            "precision: [fp32]",
            "precision: [fp32]\n      engine: [fast]",
            "unknown engine 'fast'; allowed: eager",
        ),
        ("beside: [reference]", "beside: [magic]", "magic"),
        ("repetitions: 3", "repetitions: 1", "repetitions"),
        ("model: [digits_vit]", "model: [digits_vitt]", "unknown model 'digits_vitt'"),
    ],
)
def test_bad_grids_are_refused(tmp_path, old, new, message):
    assert old in GRID
    with pytest.raises(BenchError, match=r"^[^\n]+$") as caught:
        experiments.build(load(tmp_path, GRID.replace(old, new)), "digits", Sources())
    assert message in str(caught.value)


def test_table1_has_the_papers_flops_to_the_last_digit(tmp_path):
    loaded = grid.load("experiments/table1.yaml")
    cells = experiments.build(loaded, "digits", Sources())
    assert [(cell.cell["model"], cell.cell["resolution"]) for cell in cells] == [
        ("resnet18", 32),
        ("resnet18", 224),
        ("deit_base_patch16_224", 224),
    ]
    page = publish.render(
        loaded, "digits", cells, Store(tmp_path / "runs"), tmp_path / "results", {"command": "x"}
    )
    text = page.read_text(encoding="utf-8")
    for figure in ("0.11", "5.47", "6475.63"):
        assert figure in text
    assert text.count(" 0.00 ") == 3  # ours less the paper's


def test_device_names_become_file_names():
    assert slug("Intel(R) Xeon(R) Processor") == "intel-xeon-processor"
    assert slug("NVIDIA H200") == "nvidia-h200"
    assert slug("///") == "unknown"

"""Costs: what a measurement says, how grids of costs become tasks and pages. Counts and figures, never a time."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import smi
from bench import grid, measuring, pipelines, tables
from bench.errors import BenchError
from bench.measure import Request, measure
from bench.models import ARCHITECTURES
from bench.store import Store, is_full
from bench.tables import goals
from bench.tables.cost import slug
from bench.task import Sources
from bench.worker import run_task

GRID = """
name: tiny
title: Cost of an iteration
experiment: cost
methods:
  psaq_dense: {title: PSAQ-ViT (dense), source: inversion, recipe: psaq, beside: [reference]}
  deepinversion_sparse:
    title: sparse
    source: inversion
    recipe: deepinversion
    stopping: some
    beside: [reference, smi_dense, reference_dense]
scales:
  digits:
    axes:
      model: [digits_vit]
      resolution: [32]
      method: [psaq_dense, deepinversion_sparse]
      batch: [2]
      precision: [fp32]
    settings:
      repetitions: 3
      warmup: 1
      recipes: {deepinversion: {iterations: 100}, psaq: {iterations: 20, warmup: 2}}
      schedules: {some: {at: [20, 40], drop: 0.5}}
"""


def load(tmp_path, text=GRID):
    path = tmp_path / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    return grid.load(path)


def request_of(**changed) -> Request:
    fields = {
        "model": {"name": "digits_vit", "architecture": ARCHITECTURES["digits_vit"]},
        "resolution": 32,
        "recipe": smi.recipe("deepinversion", iterations=100).to_json(),
        "kept": 16,
        "stages": [None, 32],
        "batch": 2,
        "precision": "fp32",
        "engines": ["smi", "reference", "smi_dense", "reference_dense"],
        "repetitions": 4,
        "warmup": 1,
        "device": "cpu",
        "what": "time",
    }
    return Request(**{**fields, **changed})


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
    before = pipelines.build(load(tmp_path), "digits", Sources())
    after = pipelines.build(load(tmp_path, with_engines), "digits", Sources())
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
        "settings": {"recipe": {"name": "deepinversion"}},
        "metrics": {"stages": [{"patches": patches}], **metrics},
    }


def rows_of(table: str) -> dict[str, list[str]]:
    lines = [[part.strip() for part in line.strip("| ").split("|")] for line in table.splitlines()[2:]]
    return {line[0]: line[1:] for line in lines}


def test_goals_that_nothing_was_measured_for_stand_as_not_run():
    rows = rows_of(goals.goals([], gpu=True))
    wanted = {what: row[-2] for what, row in rows.items() if row[-2] != "-"}
    assert wanted == {
        "published sparse over our sparse, last stage": ">= 10.00",
        "published dense over our sparse, last stage": ">= 40.00",
        "our dense Base over a plain matmul, in GMAC/s": ">= 50%",
        "PSAQ-ViT as published over ours": ">= 10.00",
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
    assert rows["published dense over our sparse, last stage"][-2:] == [">= 40.00", "no"]
    assert rows["our dense Base over a plain matmul, in GMAC/s"][-1] == "yes"
    assert rows["memory: published sparse over our sparse, last stage"][4] == "2.50"


@pytest.mark.slow
def test_cells_become_tasks_records_and_pages(tmp_path):
    loaded, store = load(tmp_path), Store(tmp_path / "runs")
    store.prepare()
    cells = pipelines.build(loaded, "digits", Sources())
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

    page = tables.render(loaded, "digits", cells, store, tmp_path / "results", {"command": "x"})
    (own,) = (tmp_path / "results" / "cost").glob("*.md")
    assert own.name in page.read_text(encoding="utf-8")
    text = own.read_text(encoding="utf-8")
    assert "PSAQ-ViT (dense)" in text and "published dense over our sparse" in text
    assert "On a GPU" in text and "not run" in text

    # records of another device have a page of their own and change nothing on this one
    sheet = json.loads(
        (tmp_path / "results" / "digits" / "records" / "tiny.json").read_text(encoding="utf-8")
    )
    record = tmp_path / "results" / "digits" / "records" / f"{sheet['records'][0]}.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"device": "Another (R) Device"}))
    (again,) = tables.published.sheets(tmp_path / "results")
    assert sorted(path.name for path in tables.cost.pages(again)) == sorted(["another-device.md", own.name])


@pytest.mark.slow
def test_a_measuring_process_that_fails_says_why(tmp_path):
    store = Store(tmp_path / "runs")
    store.prepare()
    task = pipelines.build(load(tmp_path), "digits", Sources())[0].tasks["cost"]
    recipe = {**task.settings["recipe"], "learning_rate": -1.0}
    task = replace(task, settings={**task.settings, "recipe": recipe})
    outcome = run_task(store, task)
    assert outcome.status == "failed"
    assert (
        "the measuring process ended with exit code 1: " in outcome.detail
        and "learning_rate" in outcome.detail
    )
    assert "in measure" in store.record(task)["error"]["traceback"]  # the process's own


@pytest.mark.slow
def test_a_stopped_measurement_leaves_no_process_and_no_record(tmp_path):
    store = Store(tmp_path / "runs")
    store.prepare()
    task = pipelines.build(load(tmp_path), "digits", Sources())[0].tasks["cost"]
    task = replace(task, settings={**task.settings, "repetitions": 10**6, "warmup": 10**6})
    questions = itertools.count()
    outcome = run_task(store, task, should_stop=lambda: next(questions) > 8)  # four seconds on
    assert outcome.status == "stopped" and store.record(task) is None
    assert children() == []


def children() -> list[str]:
    """This process's, by what /proc says."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 5.0])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cost_sweep_that_is_told_to_stop_fails_nothing(tmp_path, number, seconds):
    """Ctrl-C goes to every process of the terminal, and SLURM's SIGTERM to every process of the job."""
    load(tmp_path, GRID.replace("repetitions: 3", "repetitions: 1000"))
    places = [f"--{name}={tmp_path / name}" for name in ("store", "results")]
    command = [
        sys.executable,
        "-m",
        "bench.sweep",
        f"--grid={tmp_path / 'tiny.yaml'}",
        "--executor=serial",
        *places,
    ]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as sweep:
        while not descendants(sweep.pid) and sweep.poll() is None:
            time.sleep(0.05)
        time.sleep(seconds)
        below = descendants(sweep.pid)
        assert below
        for process in (sweep.pid, *below):
            os.kill(process, number)
        assert sweep.wait(60) == 130
    assert list((tmp_path / "store" / "records").glob("*.json")) == []
    assert not any(lives(process) for process in below)


@pytest.mark.slow
def test_no_measuring_process_outlives_a_sweep_that_is_killed(tmp_path):
    load(tmp_path, GRID.replace("repetitions: 3", "repetitions: 1000"))
    places = [f"--{name}={tmp_path / name}" for name in ("store", "results")]
    command = [sys.executable, "-m", "bench.sweep", f"--grid={tmp_path / 'tiny.yaml'}", "--executor=serial"]
    with subprocess.Popen([*command, *places], stdout=subprocess.DEVNULL) as sweep:
        while len(below := descendants(sweep.pid)) < 2 and sweep.poll() is None:
            time.sleep(0.05)
        sweep.kill()
    assert len(below) == 2  # what is forked from, and the fork
    deadline = time.monotonic() + 30
    while any(lives(process) for process in below) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(lives(process) for process in below)


@pytest.mark.slow
def test_a_fork_goes_with_what_it_was_forked_from():
    """As where the system runs out of memory and kills the one, not the other."""
    killed = []

    def should_stop() -> bool:
        server = measuring._server.pid
        if not killed and descendants(server):
            killed.extend(descendants(server))
            os.kill(server, signal.SIGKILL)
        return False

    with pytest.raises(BenchError, match="the measuring process ended by SIGKILL"):
        measuring.measured(asdict(request_of(repetitions=10**6, warmup=10**6)), should_stop)
    deadline = time.monotonic() + 30
    while any(lives(process) for process in killed) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert killed and not any(lives(process) for process in killed)


def lives(process: int) -> bool:
    """Whether it still runs: one that was killed may wait for whoever adopted it to notice."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def descendants(process: int) -> list[int]:
    try:
        own = [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []
    return [*own, *itertools.chain(*map(descendants, own))]


@pytest.mark.slow
def test_a_script_may_run_a_cost_sweep_as_its_first_line(tmp_path):
    """Processes that start by running their starter's script again would start the sweep again."""
    load(tmp_path)
    options = [f"--grid={tmp_path / 'tiny.yaml'}", "--executor=serial", "--only=psaq_dense"]
    options += [f"--{name}={tmp_path / name}" for name in ("store", "results")]
    script = tmp_path / "script.py"
    script.write_text(
        f"from bench.sweep import main\nraise SystemExit(main({options!r}))\n", encoding="utf-8"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "1 done" in done.stdout


@pytest.mark.parametrize(
    ("last", "kind"),
    [("torch.OutOfMemoryError: CUDA out of memory", MemoryError), ("ValueError: no", BenchError)],
)
def test_what_a_measuring_process_says_before_it_fails_is_not_why(monkeypatch, last, kind):
    """A cache on a full disk, or an allocation that went well at the second try, is no fault of the task's."""
    traceback = f"Traceback (most recent call last):\n  in measure\n{last}"

    def fails(order, should_stop):
        warned = "warning: OutOfMemoryError caught\nwarning: No space left on device"
        Path(order["said"]).write_text(f"{warned}\n{traceback}\n", encoding="utf-8")
        return 1

    monkeypatch.setattr(measuring, "_ask", fails)
    with pytest.raises(kind, match="ended with exit code 1: ") as caught:
        measuring.measured({}, lambda: False)
    assert str(caught.value.__cause__) == traceback and not is_full(caught.value)


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
        pipelines.build(load(tmp_path, GRID.replace(old, new)), "digits", Sources())
    assert message in str(caught.value)


def test_table1_has_the_papers_flops_to_the_last_digit(tmp_path):
    loaded = grid.load("experiments/table1.yaml")
    cells = pipelines.build(loaded, "digits", Sources())
    assert [(cell.cell["model"], cell.cell["resolution"]) for cell in cells] == [
        ("resnet18", 32),
        ("resnet18", 224),
        ("deit_base_patch16_224", 224),
    ]
    page = tables.render(
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

"""The experiment on deployed models: its plan, its page with holes, and one measurement on tiny models."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from timm.models.vision_transformer import VisionTransformer

from bench.engine.task import Sources, Task
from bench.experiments import build
from bench.experiments.deploy import figure, table
from bench.grid import load
from bench.publish.manifest import Sheet

GRID = Path(__file__).parents[4] / "experiments" / "deploy.yaml"
DONE = {
    "status": "done",
    "device": "Made-up",
    "device_type": "cpu",
    "versions": {"torch": "2.9"},
    "commit": "0123",
    "dirty": None,
    "finished": "2026-01-02T03:04:05",
    "seconds": 1.0,
}
CELL = {"model": "m", "dataset": "d", "method": "x", "bits": "W8/A8", "quantizer": "psaq", "profile": "exact"}
SPENT = {"median": 2.0, "least": 1.0, "most": 4.0}
ANSWERS = {
    "top1": {"full_precision": 97.0, "simulated": 96.0, "deployed": 96.5},
    "agreement": 99.5,
    "logit_difference": 0.005,
    "logit_error": 0.01,
    "logit_error_of_whole": 0.03,
}
SPEED = {
    "bytes": {"int8": 7_000_000, "fp32": 23_000_000},
    "milliseconds": {"1": {**dict.fromkeys(table.ENGINES, SPENT), "runtime_fp32": {**SPENT, "median": 5.0}}},
    "threads": 2,
    "instructions": ["avx2"],
}


def sheet(*entries: tuple[dict, dict]) -> Sheet:
    """cell, record of its task "deploy" -> a sheet; a record without metrics is a hole."""
    cells, records = [], {}
    for index, (cell, record) in enumerate(entries):
        tasks = {"deploy": f"deploy-{index}"} | (
            {} if cell["method"] == "none" else {"images": f"images-{index}"}
        )
        records |= {f"images-{index}": DONE, f"deploy-{index}": record} if record else {}
        cells.append({"cell": cell, "tasks": tasks})
    return Sheet(
        grid="deploy", title="Quantized models as files", experiment="deploy", scale="digits", table="deploy",
        about={}, command="command", methods={}, settings={}, paper={}, cells=cells, records=records,
    )  # fmt: skip


def test_the_grid_plans_answers_and_speed():
    cells = build(load(GRID), "digits", Sources())
    kinds = [set(cell.tasks) for cell in cells]
    assert kinds.count({"images", "deploy"}) == 12 and kinds.count({"deploy"}) == 4
    speed = next(cell.tasks["deploy"] for cell in cells if set(cell.tasks) == {"deploy"})
    assert not speed.inputs and speed.settings["batches"] == [1, 8] and "test" not in speed.settings


def test_the_page_shows_answers_speed_and_holes():
    random = {**CELL, "method": "none", "model": "deit_tiny_patch16_224"}
    page = table.text(
        sheet(
            ({**CELL, "seed": 0}, {**DONE, "metrics": ANSWERS}),
            ({**CELL, "seed": 1}, {**DONE, "metrics": {**ANSWERS, "agreement": 100.0}}),
            ({**CELL, "profile": "integer", "seed": 0}, {}),
            ({**random, "seed": 0}, {**DONE, "metrics": SPEED}),
            ({**random, "bits": "W4/A8", "seed": 0}, {}),
        )
    )
    lines = page.splitlines()
    assert any("m on d" in line and "99.75" in line and "3.00" in line for line in lines)
    assert any(
        "DeiT/16-Tiny" in line and "7.0 (int8)" in line and "2.50x at batch 1" in line for line in lines
    )
    assert sum("not run" in line for line in lines) == 2
    assert "2 threads, instructions avx2 (no VNNI)" in page


def test_a_page_without_any_record():
    assert "not run" in table.text(sheet(({**CELL, "seed": 0}, {})))


def test_what_the_figure_needs_is_in_the_registry():
    assert figure.FIGURE.grids == ("deploy",) and figure.FIGURE.name == "deploy"


@pytest.fixture
def job(tmp_path):
    """A function that makes a job of kind "deploy" on a tiny model."""

    def make(settings, inputs):
        task = Task("deploy", settings, {}, 1, "deploy")
        fields = {"task": task, "inputs": inputs, "out": tmp_path, "device": "cpu", "sources": Sources()}
        return SimpleNamespace(**fields, progress=lambda *_: None, should_stop=lambda: False)

    return make


def test_speed_of_a_tiny_model(job, monkeypatch):
    pytest.importorskip("onnxruntime")
    from bench.tasks import deploy

    monkeypatch.setattr(deploy, "alone", lambda _: nullcontext())
    monkeypatch.setattr(deploy.models, "create", lambda _: VisionTransformer(
        img_size=16, patch_size=4, embed_dim=16, depth=1, num_heads=2, num_classes=5).eval())  # fmt: skip
    settings = {"weight_bits": 4, "activation_bits": 8, "quantizer": "minmax_inputs", "profile": "integer"}
    found = deploy.run(job({**settings, "model": {}, "batches": [1, 2], "repetitions": 3}, {}))
    assert found["bytes"]["int4"] < found["bytes"]["int8"] < found["bytes"]["fp32"]
    assert set(found["milliseconds"]) == {"1", "2"} and set(found["milliseconds"]["1"]) == set(table.ENGINES)
    for one in found["milliseconds"]["2"].values():
        assert 0 < one["least"] <= one["median"] <= one["most"]

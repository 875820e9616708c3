"""What `--tensorboard DIR` leaves, read back by TensorBoard's own reader."""

from __future__ import annotations

import sys

import pytest

from bench.cli.tensorboard import TensorBoard, courses, run_name
from bench.engine.executors.protocol import DONE, RUNNING, Update
from bench.engine.task import Task
from bench.errors import BenchError, StoreError

TASK = Task("images", {"seed": 3}, label="invert digits_vit/../[x] seed 3")
RECORD = {
    "seconds": 12.5,
    "metrics": {
        "loss": 0.25,
        "kept": 14,
        "history": {"iteration": [0, 2], "loss": [1.0, 0.25], "total variation": [3.0, 2.0], "odd": [1.0]},
        "stages": [{"iterations": 2, "patches": 14}],
    },
}


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_figures_while_it_runs_then_courses_and_results(tmp_path):
    log = TensorBoard(tmp_path / "logs", lambda task: RECORD)
    log.update(Update(TASK, RUNNING))
    for step in (10, 20):
        log.update(Update(TASK, RUNNING, "", step, 100, {"loss": 1 / step}))
    log.update(Update(TASK, DONE))
    log.update(Update(Task("evaluate", {}), RUNNING, "", 1, 2, {"top1": 50.0}))
    log.close()
    (folder,) = (tmp_path / "logs").iterdir()
    found = read(folder)
    assert folder.name == run_name(TASK)
    assert found["running/loss"] == [(10, pytest.approx(0.1)), (20, pytest.approx(0.05))]
    assert found["course/loss"] == [(0, 1.0), (2, 0.25)] and found["course/total variation"] == [
        (0, 3.0),
        (2, 2.0),
    ]
    assert found["result/kept"] == [(0, 14.0)] and found["result/seconds of the task"] == [(0, 12.5)]
    assert not any("odd" in tag for tag in found)


def test_courses_of_transfers_leave_out_what_is_no_number():
    metrics = {"curve": [{"step": 0, "loss": None, "top1": 10.0}, {"step": 5, "loss": 2.0, "top1": 20.0}]}
    assert list(courses(metrics)) == [("top1", 0, 10.0), ("loss", 5, 2.0), ("top1", 5, 20.0)]
    assert list(courses({"answers": [1, 2], "note": "x", "nothing": {}})) == []


def test_a_runs_name_is_one_folder_and_tells_tasks_apart():
    name = run_name(TASK)
    assert "/" not in name and not name.startswith(".") and name.endswith(TASK.key[:6])
    assert name != run_name(Task("images", {"seed": 4}, label=TASK.label))


def test_without_the_package_it_is_one_line_that_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(BenchError, match=r"pip install .*tensorboard") as error:
        TensorBoard(tmp_path / "logs", lambda task: None)
    assert "\n" not in str(error.value) and not (tmp_path / "logs").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--tensorboard"):
        TensorBoard(tmp_path / "file" / "logs", lambda task: None)

"""What synthetic images say of how they were made, and that finished batches are not made again."""

from dataclasses import replace

import pytest

import smi

SHORT = smi.recipe("deepinversion", iterations=12, learning_rate=0.1)
STOPPING = smi.Stopping(at=(3, 6), drop=(0.3, 0.5), score="least_attention")


def test_images_say_how_they_were_made(tiny_vit):
    execution = smi.Execution(micro_batch=1)
    settings = {
        "stopping": STOPPING,
        "seed": 7,
        "batch_size": 2,
        "snapshots": (12, 0),
        "execution": execution,
    }
    made = smi.invert(tiny_vit(), 3, replace(SHORT, name="mine"), **settings).made
    expected = {
        "recipe": replace(SHORT, name="mine").to_json(),
        "iterations": 12,
        "stopping": {"at": [3, 6], "drop": [0.3, 0.5]},
        "score": "least_attention",
        "micro_batch": 1,
        "precision": "fp32",
        "snapshots": [0, 12],
        "seed": 7,
        "count": 3,
        "batch_size": 2,
        "device": "cpu",
    }
    assert {name: made[name] for name in expected} == expected
    assert (
        made["seconds"] == pytest.approx(sum(stage["seconds"] for stage in made["stages"]))
        and made["seconds"] > 0
    )


def test_a_dense_run_has_no_score_and_no_stops(tiny_vit):
    made = smi.invert(tiny_vit(), 1, smi.recipe(SHORT, iterations=2)).made
    assert made["score"] is None and made["stopping"] is None and made["micro_batch"] is None


def test_finished_batches_are_not_made_again(tiny_vit, tmp_path):
    settings = {"recipe": SHORT, "batch_size": 1, "checkpoint": tmp_path / "state"}
    asked: list[int] = []
    with pytest.raises(smi.Interrupted):
        smi.invert(
            tiny_vit(), 3, **settings, should_stop=lambda: bool(asked.append(1)) or len(asked) > 2 * 12 + 6
        )
    asked.clear()
    smi.invert(tiny_vit(), 3, **settings, should_stop=lambda: bool(asked.append(1)))
    assert 0 < len(asked) <= 12
    asked.clear()
    smi.invert(tiny_vit(), 3, **settings, should_stop=lambda: bool(asked.append(1)))
    assert not asked

"""Scores are of finite logits alone."""

import pytest
import torch
from torch.utils.data import TensorDataset

import smi
from bench.errors import BenchError
from bench.tasks import scoring
from bench.tasks.scoring import answered_right, compare, top1

SPLIT = TensorDataset(torch.rand(6, 3, 16, 16), torch.arange(6) % 5)


def compared(reference, other):
    return compare(reference, other, SPLIT, "cpu", lambda *_: None, lambda: False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_model_of_infinite_logits_is_never_scored(tiny_vit, value):
    good, bad = tiny_vit(), tiny_vit()
    with torch.no_grad():
        bad.head.bias[3] = value
    with pytest.raises(smi.NonFiniteLoss, match="the model's logits are NaN or infinite"):
        top1(bad, SPLIT, "cpu")
    with pytest.raises(smi.NonFiniteLoss, match="the full-precision model's logits"):
        compared(bad, good)
    with pytest.raises(smi.NonFiniteLoss, match="the quantized model's logits"):
        compared(good, bad)
    assert compared(good, good)["agreement"] == 100


def test_errors_relative_to_nothing_and_scores_of_nothing_are_refused(tiny_vit):
    silent = tiny_vit()
    with torch.no_grad():
        silent.head.weight.zero_()
        silent.head.bias.zero_()
    with pytest.raises(smi.NonFiniteLoss, match="logits are all 0"):
        compared(silent, tiny_vit())
    with pytest.raises(BenchError, match="holds no pictures"):
        top1(tiny_vit(), TensorDataset(torch.zeros(0, 3, 16, 16), torch.zeros(0, dtype=torch.int64)), "cpu")


def test_looking_seldom_at_what_is_counted_changes_nothing_that_is_found(tiny_vit, monkeypatch):
    """A GPU's counts are looked at after every eighth batch; a device that is not plainly "cpu" counts as one."""
    monkeypatch.setattr(scoring, "BATCH", 4)
    monkeypatch.setattr(scoring, "LOOK", 3)
    split = TensorDataset(torch.rand(22, 3, 16, 16), torch.arange(22) % 5)
    model, other, bad = tiny_vit(), tiny_vit(1), tiny_vit()
    found = {}
    for device in ("cpu", "cpu:0"):
        seen = []
        result = compare(
            model, other, split, device, lambda *said, seen=seen: seen.append(said), lambda: False
        )
        right = answered_right(other, split, device, lambda *said, seen=seen: seen.append(said))
        found[device] = (result, right.tolist(), {said[0]: said for said in seen})
        assert result["top1"] == 100 * right.mean() and result["pictures"] == 22
    (result, right, seen), (seldom, right_seldom, seen_seldom) = found.values()
    assert seldom == result and right_seldom == right
    assert list(seen) == [4, 8, 12, 16, 20, 22] and list(seen_seldom) == [12, 22]
    assert all(seen[done] == said for done, said in seen_seldom.items())
    with torch.no_grad():
        bad.head.bias[3] = float("nan")
    with pytest.raises(smi.NonFiniteLoss, match="the model's logits are NaN"):
        top1(bad, split, "cpu:0")

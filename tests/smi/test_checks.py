"""What counts as a number, numpy's and torch's included, and never a bool."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch

import smi
from smi.checks import is_number, is_whole, plain


@pytest.mark.parametrize("make", [np.int8, np.int64, np.uint16])
def test_numpy_s_whole_numbers_are_whole_numbers(make):
    assert is_whole(make(3)) and is_number(make(3)) and type(plain(make(3))) is int


@pytest.mark.parametrize("make", [np.float16, np.float32, np.float64, float, Fraction])
def test_other_numbers_are_numbers_and_not_whole(make):
    assert is_number(make(0.5)) and not is_whole(make(0.5)) and type(plain(make(0.5))) is float


@pytest.mark.parametrize("value", [True, np.bool_(True), None, "3", [3], 1j, float("nan"), np.float32("inf")])
def test_what_is_no_number(value):
    assert not is_whole(value) and not is_number(value)


@pytest.mark.parametrize(
    "value",
    [[1, 2], (1, 2), range(1, 3), np.array([1, 2]), torch.tensor([1, 2]), [np.int64(1), torch.tensor(2)]],
)
def test_several_numbers_are_a_tuple_of_python_s(value):
    assert plain(value) == (1, 2) and all(type(number) is int for number in plain(value))


def test_what_is_no_number_stays_as_it_is():
    for value in (None, True, "head", torch.nn.ReLU):
        assert plain(value) is value
    assert plain(np.bool_(True)) is True


def test_settings_take_numpy_s_numbers_and_ranges_and_keep_python_s():
    stopping = smi.Stopping(at=np.array([1, 2]), drop=np.float32(0.5))
    assert stopping == smi.Stopping(at=range(1, 3), drop=0.5) and json.dumps(stopping.at)
    chosen = smi.recipe(
        "psaq", iterations=np.int64(4), warmup=np.int32(1), betas=np.array([0.5, 0.9]), flip=np.int8(0)
    )
    same = smi.recipe("psaq", iterations=4, warmup=1, betas=(0.5, 0.9), flip=0)
    assert json.dumps(chosen.to_json()) == json.dumps(same.to_json())


def test_inversions_take_numpy_s_numbers(tiny_vit, tmp_path):
    def made(number, **more):
        return smi.invert(
            tiny_vit(), number(2), seed=number(1), iterations=number(3), batch_size=number(1), **more
        )

    plainly = made(int, snapshots=(1, 2))
    of_numpy = made(np.int64, snapshots=np.array([1, 2]), checkpoint=tmp_path / "state")
    assert torch.equal(plainly.pixels, of_numpy.pixels)
    assert plainly.made["snapshots"] == of_numpy.made["snapshots"] == [1, 2]


@pytest.mark.parametrize(
    "field", ["iterations", "rounds", "learning_rate", "betas", "warmup", "jitter", "flip"]
)
@pytest.mark.parametrize("value", [True, None, "x", {}, [], float("nan"), [[1]], -1, b"x"])
def test_recipes_refuse_every_wrong_type_in_one_line(field, value):
    with pytest.raises(smi.InvalidSetting, match=rf"{field} is .*allowed: "):
        smi.recipe("deepinversion", **{field: value})


@pytest.mark.parametrize("field", ["objective", "schedule", "joint_jitter", "student"])
@pytest.mark.parametrize("value", [3, "x", {"x": "y"}, [], [3], float("nan")])
def test_recipes_refuse_what_is_no_choice(field, value):
    with pytest.raises(smi.InvalidSetting):
        smi.recipe("deepinversion", **{field: value})

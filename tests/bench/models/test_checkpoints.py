"""Checkpoints as trainings leave them: wrapped, nested, of other precisions, with more than weights in them."""

import argparse
import pathlib

import pytest
import torch
from safetensors.torch import save_file

from bench.errors import BenchError
from bench.models import checkpoints, weights


@pytest.fixture
def saved(tmp_path, tiny_vit):
    """A function that saves what becomes of a model's weights, and loads them into another model."""
    checkpoints.note.cache_clear()
    source, path = tiny_vit(seed=1), tmp_path / "some.pth"

    def load(change, safe=False):
        state = change(source.state_dict())
        model = tiny_vit()
        if safe:
            save_file(state, path.with_suffix(".safetensors"))
        else:
            torch.save(state, path)
        weights.load_weights(model, path.with_suffix(".safetensors") if safe else path)
        return model, source

    return load


def same(pair, tolerance=0.0):
    model, source = pair
    return all(
        value.dtype == torch.float32 and torch.allclose(value, source.state_dict()[name], atol=tolerance)
        for name, value in model.state_dict().items()
    )


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "model.module."])
@pytest.mark.parametrize("safe", [True, False])
def test_prefixes_of_wrappers_are_taken_off_and_said(saved, capfd, prefix, safe):
    assert same(saved(lambda state: {prefix + name: value for name, value in state.items()}, safe))
    assert f"every name begins with {prefix!r}" in capfd.readouterr().err


def test_wrappers_themselves_are_read(saved, tiny_vit, capfd):
    from torch.optim.swa_utils import AveragedModel

    assert same(saved(lambda state: torch.nn.DataParallel(load(tiny_vit(), state)).state_dict()))
    assert same(saved(lambda state: AveragedModel(load(tiny_vit(), state)).state_dict()))
    assert same(saved(lambda state: torch.compile(load(tiny_vit(), state)).state_dict()))
    assert capfd.readouterr().err.count("note: ") == 2, "the same prefix of the same file is said once"
    assert same(saved(lambda state: state)) and not capfd.readouterr().err


def load(model, state):
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("nested", ["model", "state_dict", "model_state_dict", "module"])
def test_a_training_s_arguments_do_no_harm(saved, nested):
    args = argparse.Namespace(lr=0.1, betas=(0.9, 0.999), name="x", nested=argparse.Namespace(a=None))
    assert same(saved(lambda state: {nested: state, "args": args, "epoch": 3}))


def test_what_could_run_code_is_named_and_what_to_do_is_said(saved):
    with pytest.raises(
        BenchError, match=r"no readable checkpoint: .* it holds pathlib\S* .*save the weights"
    ) as refusal:
        saved(lambda state: {"model": state, "args": argparse.Namespace(path=pathlib.PurePosixPath("x"))})
    assert "\x1b" not in str(refusal.value) and "\n" not in str(refusal.value)
    assert "some.pth" in str(refusal.value)


def test_a_whole_model_is_refused_by_its_class(tmp_path, tiny_vit):
    torch.save(tiny_vit(), tmp_path / "whole.pth")
    with pytest.raises(BenchError, match=r"it holds timm\.\S+VisionTransformer.*state_dict"):
        weights.load_weights(tiny_vit(), tmp_path / "whole.pth")


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2), (torch.float64, 0.0)]
)
@pytest.mark.parametrize("safe", [True, False])
def test_other_precisions_become_the_model_s(saved, dtype, tolerance, safe):
    assert same(saved(lambda state: {n: v.to(dtype) for n, v in state.items()}, safe), tolerance)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.to(torch.int8), "head.weight is int8, the model's float32"),
        (lambda value: value.to(torch.complex64), "head.weight is complex64, the model's float32"),
        (lambda value: value * float("nan"), "head.weight holds NaN or infinite"),
        (lambda value: value / 0, "head.weight holds NaN or infinite"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(saved, change, message):
    with pytest.raises(BenchError, match=message):
        saved(lambda state: {**state, "head.weight": change(state["head.weight"])})


def test_positions_of_another_grid_are_resampled_and_said(tiny_vit, tmp_path, capfd):
    torch.save(tiny_vit(img_size=24).state_dict(), tmp_path / "larger.pth")
    weights.load_weights(tiny_vit(), tmp_path / "larger.pth")
    assert "pos_embed is (1, 37, 16); it is resampled to the model's (1, 17, 16)" in capfd.readouterr().err

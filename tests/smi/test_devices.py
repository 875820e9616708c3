"""Each public function on each device, whole and interrupted: on the CPU here, on a GPU by `nox -s gpu_tests`."""

import pytest
import torch
from torch.testing import assert_close

import smi
from smi.device import float32_arithmetic
from smi.state import InversionConfig, State
from smi.vit import adapt

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
SHORT = smi.recipe("deepinversion", iterations=8, learning_rate=0.1)
PSAQ = smi.recipe("psaq", iterations=8, warmup=2)
STOPPING = smi.Stopping(at=(2, 5), drop=0.3)
NEAR = {"rtol": 0, "atol": 5e-3}  # a few steps of the optimiser, from rounding


def stop_after(calls: int):
    asked = iter(range(1000))
    return lambda: next(asked) >= calls


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("recipe", "stopping"), [(SHORT, None), (SHORT, STOPPING), (PSAQ, None)])
@pytest.mark.parametrize("stops_at", [3, 6])
def test_an_interrupted_inversion_goes_on(tiny_vit, tmp_path, device, recipe, stopping, stops_at):
    model, settings = tiny_vit(), {"recipe": recipe, "stopping": stopping, "seed": 1, "device": device}
    whole = smi.invert(model, 2, **settings)
    path = tmp_path / "state"
    with pytest.raises(smi.Interrupted):
        smi.invert(model, 2, **settings, checkpoint=path, should_stop=stop_after(stops_at))
    assert_close(smi.invert(model, 2, **settings, checkpoint=path).pixels, whole.pixels, **NEAR)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"micro_batch": 2}])
def test_the_options_of_an_inversion_work(tiny_vit, device, settings):
    plain = smi.invert(tiny_vit(), 4, SHORT, STOPPING, seed=1, device=device)
    ours = smi.invert(
        tiny_vit(), 4, SHORT, STOPPING, seed=1, device=device, execution=smi.Execution(**settings)
    )
    assert ours.pixels.isfinite().all() and ours.kept.shape == plain.kept.shape
    if "micro_batch" in settings:
        assert_close(ours.pixels, plain.pixels, **NEAR)


@pytest.mark.parametrize("device", DEVICES)
def test_images_made_on_a_device_calibrate_and_teach_there(tiny_vit, tmp_path, device):
    model = tiny_vit()
    images = smi.invert(model, 8, SHORT, STOPPING, seed=1, device=device)
    small = smi.quantize(model.to(device), images, 8, 8)
    inputs = torch.rand(2, 3, 16, 16, device=device)
    assert small(inputs).device.type == device and small(inputs).isfinite().all()

    settings = {"steps": 6, "batch_size": 4, "seed": 3, "device": device}
    whole = smi.transfer(model, tiny_vit(seed=2), images, **settings)
    path = tmp_path / "state"
    with pytest.raises(smi.Interrupted):
        smi.transfer(model, tiny_vit(seed=2), images, **settings, checkpoint=path, should_stop=stop_after(3))
    resumed = smi.transfer(model, tiny_vit(seed=2), images, **settings, checkpoint=path)
    for one, other in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
        assert_close(one, other, **NEAR)


def tf32():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("newer", [True, False], ids=["torch of now", "torch before 2.9"])
@pytest.mark.parametrize("before", [(False, True), (True, True), (False, False)])  # the first is torch's own
def test_float32_is_set_for_products_and_convolutions_alike_and_given_back(monkeypatch, newer, before):
    """The flags alone; tests/smi/test_cuda.py measures on a GPU what they do."""
    if not newer:
        monkeypatch.delattr(type(torch.backends.cudnn), "conv", raising=False)
        monkeypatch.setattr(smi.device, "hasattr", lambda *_: False, raising=False)
    elif not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("this torch has the older flags alone")
    own = tf32()
    try:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
        with float32_arithmetic("cuda"):
            assert tf32() == (False, False)
            with float32_arithmetic("cuda:0", "tf32"):
                assert tf32() == (True, True)
            with pytest.raises(KeyError), float32_arithmetic("cuda", "bf16"):
                assert tf32() == (False, False)
                raise KeyError
            assert tf32() == (False, False)
        assert tf32() == before
        with float32_arithmetic("cpu"):
            assert tf32() == before
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = own


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch 2.9's flags")
def test_the_newer_flags_come_back_as_they_were():
    convolutions = torch.backends.cudnn.conv
    own = convolutions.fp32_precision
    try:
        convolutions.fp32_precision = "ieee"  # which the older flag does not know of
        with float32_arithmetic("cuda", "tf32"):
            assert convolutions.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "tf32"
        assert convolutions.fp32_precision == "ieee"
    finally:
        torch.backends.cudnn.allow_tf32 = True
        convolutions.fp32_precision = own


def test_all_of_a_saved_optimiser_goes_to_the_device(tiny_vit):
    """A fused Adam on a GPU counts its steps there, and refuses a count that lies on the CPU."""
    tokens = adapt(tiny_vit())
    here, there = (
        State.start(tokens, InversionConfig(SHORT), 2, None, (1, 2), device) for device in ("cpu", "meta")
    )
    here.variable.grad = torch.ones_like(here.variable)
    here.optimizer.step()
    there.load_state_dict(here.state_dict(), tokens.grid)
    (moments,) = there.optimizer.state.values()
    assert {name: value.device.type for name, value in moments.items()} == dict.fromkeys(
        ("step", "exp_avg", "exp_avg_sq"), "meta"
    )

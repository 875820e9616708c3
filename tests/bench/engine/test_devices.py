"""Devices by name: what is asked for is there, or one line says what is."""

from types import SimpleNamespace

import pytest
import torch

from bench.engine import devices
from bench.errors import BenchError


@pytest.mark.parametrize("name", ["gpu", "tpu7", "", "cuda:x", "meta", "cpu:", "vulkan"])
def test_what_computes_nothing_is_no_device(name):
    for check in (devices.resolve, devices.check_kind):
        with pytest.raises(BenchError, match="no such device; allowed: cpu, cuda"):
            check(name)


def test_a_gpu_that_is_elsewhere_may_be_named_but_not_used_here():
    devices.check_kind("cuda:99")
    with pytest.raises(BenchError, match="there is no such device here; there are: cpu"):
        devices.resolve("cuda:99")
    assert devices.resolve("cpu") == "cpu"


@pytest.mark.parametrize(
    ("files", "visible", "count"),
    [
        ([], None, 0),
        (["nvidiactl", "nvidia0", "nvidia1", "nvidia-uvm", "nvidia-modeset"], None, 2),
        (["nvidiactl", "nvidia0", "nvidia1"], "1", 1),
        (["nvidiactl", "nvidia0"], "0,1,2", 1),
        (["nvidiactl", "nvidia0"], "", 0),
        (["nvidiactl", "nvidia0"], "-1", 0),
        (["kfd", "dri/renderD128", "dri/renderD129", "dri/card0"], None, 2),
        (["dxg"], None, 1),
    ],
)
def test_before_torch_is_imported_gpus_are_those_that_the_machine_shows(
    tmp_path, monkeypatch, files, visible, count
):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(devices, "DEVICES", tmp_path)
    monkeypatch.setattr(devices, "sys", SimpleNamespace(modules={}))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.gpu_count() == count


def test_torch_has_the_last_word_once_it_is_there(tmp_path, monkeypatch):
    (tmp_path / "nvidiactl").touch()
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(devices, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)  # a torch for CPUs
    assert devices.gpu_count() == 0

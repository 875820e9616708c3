"""Devices by name: what is asked for is there, or one line says what is."""

import pytest

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

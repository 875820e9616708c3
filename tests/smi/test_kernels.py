"""The GPU's kernels beside what torch's operations make of the same: by Triton's interpreter here, on a GPU there."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from smi import kernels, patch_similarity, total_variation

ROOT = Path(__file__).parents[2]
SHAPES = [(1, 1, 1, 1), (2, 3, 1, 7), (2, 3, 7, 1), (3, 2, 17, 23), (2, 3, 40, 40)]
SAMPLES = [(1, 1), (3, 50), (2, 2500)]
HERE = """
import sys
sys.path.insert(0, sys.argv[1])
import test_kernels
from smi import kernels
import torch
assert kernels.serve(torch.ones(2)) and not kernels.serve(torch.ones(2).double()) and not kernels.serve(torch.ones(0))
for shape in test_kernels.SHAPES:
    test_kernels.compare_total_variation(shape, "cpu")
for shape in test_kernels.SAMPLES:
    test_kernels.compare_density(shape, "cpu")
print("compared")
"""


def compare_total_variation(shape, device):
    """Value and gradient, with a factor from upstream; of a constant image 0 and 0."""
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    for one in (image, torch.full_like(image, 0.3)):
        one.requires_grad_()
        ways = (total_variation._FusedTotalVariationL2, total_variation._TotalVariationL2)
        found, wanted = ((value := way.apply(one), torch.autograd.grad(0.37 * value, one)[0]) for way in ways)
        assert_close(found, wanted, rtol=1e-4, atol=1e-6)
        assert "Fused" in total_variation.tv_l2(one).grad_fn.name()


def compare_density(shape, device):
    generator = torch.Generator().manual_seed(1)
    samples = (torch.rand(shape, generator=generator) * 2 - 1).to(device).requires_grad_()
    points = torch.linspace(-1, 1, 10, device=device)
    upstream = torch.randn(shape[0], 10, generator=generator).to(device)
    ways = (patch_similarity._FusedKernelDensity, patch_similarity._KernelDensity)
    found, wanted = (
        (value := way.apply(samples, points), torch.autograd.grad((value * upstream).sum(), samples)[0])
        for way in ways
    )
    assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-6)
    assert_close(found[1], wanted[1], rtol=1e-3, atol=1e-5 * float(wanted[1].abs().max()) + 1e-6)
    assert "Fused" in patch_similarity.kernel_density(samples, points).grad_fn.name()


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is there for Linux alone")
def test_kernels_are_what_torch_computes_under_the_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HERE, str(Path(__file__).parent)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert (ended.returncode, ended.stdout) == (0, "compared\n"), ended.stderr


def test_a_cpu_is_not_served():
    assert not kernels.serve(torch.ones(2, 3, 4, 4))


def test_where_triton_cannot_build_torch_computes_and_it_is_said_once(monkeypatch):
    def no_compiler(image):
        raise RuntimeError("Failed to find C compiler.\nPlease specify one")

    monkeypatch.setattr(kernels, "squared_differences", no_compiler)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    kernels.work_on.cache_clear()
    with pytest.warns(
        UserWarning, match=r"kernels do not work on cpu, .* slower: Failed to find C compiler\.$"
    ):
        assert not kernels.work_on(torch.device("cpu"))
    assert not kernels.work_on(torch.device("cpu"))
    kernels.work_on.cache_clear()


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [*SHAPES, (32, 3, 224, 224)])
def test_total_variation_on_a_gpu(shape):
    compare_total_variation(shape, "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [*SAMPLES, (32, 196 * 196)])
def test_density_on_a_gpu(shape):
    compare_density(shape, "cuda")


@pytest.mark.gpu
def test_what_they_sum_is_the_same_each_time():
    image = torch.randn(8, 3, 224, 224, device="cuda")
    assert len({kernels.squared_differences(image).sum().item() for _ in range(5)}) == 1

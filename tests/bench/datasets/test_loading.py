"""Batches come in order, and what another thread could not read is told as if it had been read here."""

import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor
from vision_data import folders

from bench.datasets import batches, loading, open_dataset
from bench.datasets.fitting import Fit, unit_range
from bench.engine.task import Sources
from bench.errors import BenchError

CONFIG = {"input_size": (3, 32, 32), "interpolation": "bicubic"}
ROOT = Path(__file__).parents[3]
SMALL_SHARED_MEMORY = 'mount -t tmpfs -o size=256k tmpfs /dev/shm && exec "$@"'
LOAD = """
import sys
from bench.datasets import batches, loading, open_dataset
from bench.engine.task import Sources
loading.loader_threads = lambda split, size: 2
config = {"input_size": (3, 64, 64), "interpolation": "bicubic"}
split = open_dataset("mine", {}, Sources(data={"mine": sys.argv[1]})).split("test", config)
for device in sys.argv[2:]:
    labels = [label for _, part in batches(split, 60, device) for label in part.tolist()]
    print(labels == sorted(labels), len(labels))
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_one_line_whoever_decodes_it(tmp_path, monkeypatch, workers):
    root = folders(tmp_path, each=2)
    split = open_dataset("mine", {}, Sources(data={"mine": root})).split("test", CONFIG)
    monkeypatch.setattr(loading, "loader_threads", lambda split, size: workers)
    _, labels = zip(*batches(split, 4), strict=True)
    assert torch.cat(labels).tolist() == [0, 0, 1, 1, 2, 2]
    (root / "test" / "cat" / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(BenchError, match=r"cat/1\.jpg cannot be read as a picture") as refusal:
        list(batches(split, 4))
    assert "\n" not in str(refusal.value)


def test_a_model_of_one_channel_is_shown_grey_pictures(tmp_path):
    sources = Sources(data={"mine": folders(tmp_path)})
    split = open_dataset("mine", {}, sources).split("test", {**CONFIG, "input_size": (1, 32, 32)})
    colour = open_dataset("mine", {}, sources).split("test", CONFIG)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    for (grey, _), (picture, _) in zip(split, colour, strict=True):
        assert grey.shape == (1, 32, 32)
        assert (grey - (picture * luma).sum(0)).abs().max() < 0.02
    with pytest.raises(BenchError, match="takes pictures of 4 channels; allowed: 3 .* or 1"):
        open_dataset("mine", {}, sources).split("test", {**CONFIG, "input_size": (4, 32, 32)})


def test_eight_bits_become_what_torchvision_makes_of_them():
    picture = numpy.arange(256, dtype=numpy.uint8).reshape(16, 16, 1).repeat(3, 2)
    fit = Fit((3, 16, 16), "bicubic", 1.0)
    found = unit_range(fit(Image.fromarray(picture)))
    assert torch.equal(found, to_tensor(picture)) and found.is_contiguous()


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_splits_own_pictures_and_draw_from_nobodys_random_numbers(
    tmp_path, monkeypatch, workers
):
    split = open_dataset("mine", {}, Sources(data={"mine": folders(tmp_path)})).split("test", CONFIG)
    monkeypatch.setattr(loading, "loader_threads", lambda split, size: workers)
    before = torch.random.get_rng_state()
    pictures, labels = (torch.cat(parts) for parts in zip(*batches(split, 5), strict=True))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(pictures, torch.stack([picture for picture, _ in split]))
    assert all(part.is_contiguous() for part, _ in batches(split, 5))
    assert labels.tolist() == [label for _, label in split]
    order = [[7, 2], [0, 11, 2]]
    for chosen, (some, of_some) in zip(order, loading.load(split, 5, order=order), strict=True):
        assert torch.equal(some, pictures[chosen]) and torch.equal(of_some, labels[chosen])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_no_shared_memory_is_needed(tmp_path, device):
    """A batch here has 740 kB, /dev/shm 256; a container's has 64 MB, and ImageNet's batches in the making 300."""
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", SMALL_SHARED_MEMORY, "sh"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a /dev/shm of one's own")
    root = folders(tmp_path, each=60)
    command = [*alone, sys.executable, "-c", LOAD, str(root), device]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert (ended.returncode, ended.stdout) == (0, "True 180\n"), ended.stderr


@pytest.mark.gpu
def test_pictures_are_decoded_beside_a_busy_gpu(tmp_path, monkeypatch):
    """Processes forked here waited for ever on an H200: from a process with a CUDA context and threads of its own."""
    torch.set_num_threads(4)
    weights = torch.randn(512, 512, device="cuda", requires_grad=True)
    (torch.rand(256, 512, device="cuda") @ weights).sum().backward()
    torch.rand(3000, 3, 32, 32).mean((0, 2, 3))
    monkeypatch.setattr(loading, "loader_threads", lambda split, size: 8)
    split = open_dataset("mine", {}, Sources(data={"mine": folders(tmp_path, each=60)})).split("test", CONFIG)
    assert sum(len(labels) for _, labels in batches(split, 5, "cuda")) == 180

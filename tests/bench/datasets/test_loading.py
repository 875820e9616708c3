"""Batches come in order, and what a worker process could not read is told as if it had been read here."""

import pytest
import torch
from vision_data import folders

from bench.datasets import batches, loading, open_dataset
from bench.engine.task import Sources
from bench.errors import BenchError

CONFIG = {"input_size": (3, 32, 32), "interpolation": "bicubic"}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_one_line_whoever_decodes_it(tmp_path, monkeypatch, workers):
    root = folders(tmp_path, each=2)
    split = open_dataset("mine", {}, Sources(data={"mine": root})).split("test", CONFIG)
    monkeypatch.setattr(loading, "loader_workers", lambda split, size: workers)
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

"""Weights of timm's hub: named by their contents, and read from the cache where there is no network."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from bench import models
from bench.engine.atomic import sha256_of
from bench.engine.task import Sources
from bench.errors import BenchError
from bench.models import weights

NAME = "vit_tiny_patch16_224"


@pytest.fixture
def cached(tmp_path, monkeypatch) -> Path:
    """The file in the hub's cache, as a planning sweep with a network has left it; now there is none."""
    tag = timm.models.get_pretrained_cfg(NAME).hf_hub_id
    repository = tmp_path / ("models--" + tag.replace("/", "--"))
    path = repository / "snapshots" / "abc" / "model.safetensors"
    path.parent.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    save_file(timm.create_model(NAME).state_dict(), path)

    def unreachable(*_args, **_options):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "create_connection", unreachable)
    monkeypatch.setattr(weights, "getproxies", dict)
    weights._hub_answers.cache_clear()
    yield path
    weights._hub_answers.cache_clear()


def test_cached_weights_serve_without_a_network_and_are_named_by_their_contents(cached, tmp_path):
    described = models.describe(NAME, Sources())
    assert described["weights"] == {"sha256": sha256_of(cached)}
    models.create(described, Sources())
    beside = tmp_path / "checkpoints"
    beside.mkdir()
    (beside / f"{NAME}.safetensors").write_bytes(cached.read_bytes())
    assert models.describe(NAME, Sources(checkpoints=beside)) == described, "wherever the file lies"


def test_other_weights_than_planned_with_are_refused(cached):
    described = models.describe(NAME, Sources())
    save_file(timm.create_model(NAME).state_dict(), cached)
    with pytest.raises(BenchError, match="other weights than those planned with"):
        models.create(described, Sources())

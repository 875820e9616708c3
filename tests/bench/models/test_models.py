"""Models by name: description, weights offline first, damaged and foreign checkpoints, saving and loading."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

import smi
from bench import models
from bench.engine.task import Sources
from bench.errors import BenchError, MissingData
from bench.models import weights

TINY = "deit_tiny_patch16_224"


@pytest.fixture
def offline(monkeypatch):
    """The hub is out of reach and the cache is empty."""

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def small(tiny_vit):
    return tiny_vit()


def test_the_micro_vit_is_a_plain_timm_model_with_a_data_config(tmp_path):
    described = models.describe("digits_vit", Sources())
    model = models.create(described)
    assert type(model) is VisionTransformer
    assert sum(p.numel() for p in model.parameters()) == 206026
    models.initialise_micro_vit(model, seed=0)
    models.set_data_config(model, [0.3], [0.37])
    models.save(model, described, tmp_path)
    loaded, data = models.load(tmp_path)
    assert data["input_size"] == [1, 32, 32] and data["mean"] == [0.3] and data["std"] == [0.37]
    image = torch.randn(2, 1, 32, 32)
    assert torch.equal(loaded(image), model(image))
    assert smi.vit.normalisation(loaded)[0].item() == pytest.approx(0.3)


def test_initialisation_depends_on_the_seed_alone():
    first, same, other = (models.create(models.describe("digits_vit", Sources())) for _ in range(3))
    for model, seed in ((first, 0), (same, 0), (other, 1)):
        models.initialise_micro_vit(model, seed)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)


def test_a_name_may_carry_the_seed_of_the_training():
    assert models.split_seed("cifar_vit_small@12") == ("cifar_vit_small", 12)
    assert models.split_seed("digits_vit") == ("digits_vit", None)
    assert models.describe("cifar_vit_small@1", Sources()) == models.describe("cifar_vit_small@0", Sources())
    assert models.outline("cifar_vit_small@1").embed_dim == 96


@pytest.mark.parametrize("name", ["digits_vit@", "digits_vit@-1", "digits_vit@x", f"{TINY}@1", "@0"])
def test_a_seed_that_names_no_training_is_refused(name):
    with pytest.raises(BenchError, match="seed that one of our own models is trained from"):
        models.describe(name, Sources())


def test_an_outline_has_the_shape_and_costs_nothing():
    model = models.outline(TINY)
    assert model.patch_embed.num_patches == 196
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("deit_tiny_patch16_225", "deit_tiny_patch16_224"),
        ("deit_tiny", "deit_tiny_patch16_224"),
        ("DeiT-Base", "deit_base_patch16_224"),
        ("cifar_vit_smal", "cifar_vit_small"),
    ],
)
def test_unknown_names_are_refused_with_near_ones(name, near):
    with pytest.raises(BenchError, match=rf"^unknown model '{name}'[^\n]*near it: [^\n]*\b{near}\b"):
        models.describe(name, Sources())


@pytest.mark.parametrize("nested", [None, "model", "state_dict"])
def test_local_weights_come_first_and_are_known_by_content(tmp_path, offline, nested):
    torch.manual_seed(0)
    state = {
        name: torch.randn_like(value) for name, value in models.create({"name": TINY}).state_dict().items()
    }
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    if nested is None:
        save_file(state, here / f"{TINY}.safetensors")
        save_file(state, there / f"{TINY}.safetensors")
    else:
        torch.save({nested: state}, here / f"{TINY}.pth")
        (there / f"{TINY}.pth").write_bytes((here / f"{TINY}.pth").read_bytes())
    described = models.describe(TINY, Sources(checkpoints=here))
    assert described == models.describe(TINY, Sources(checkpoints=there))
    assert str(tmp_path) not in json.dumps(described)
    model = models.create(described, Sources(checkpoints=there))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_weights_changed_since_planning_are_refused(tmp_path, offline):
    path = tmp_path / f"{TINY}.safetensors"
    model = models.create({"name": TINY})
    save_file(model.state_dict(), path)
    described = models.describe(TINY, Sources(checkpoints=tmp_path))
    save_file({name: value + 1 for name, value in model.state_dict().items()}, path)
    with pytest.raises(BenchError, match="other weights than those planned"):
        models.create(described, Sources(checkpoints=tmp_path))


def test_missing_weights_say_what_to_fetch_and_where_to_put_it(tmp_path, offline):
    with pytest.raises(MissingData) as refusal:
        models.describe(TINY, Sources(checkpoints=tmp_path))
    line = str(refusal.value)
    assert f"{tmp_path}/{TINY}.safetensors" in line and "--checkpoints DIR" in line and "fb_in1k" in line
    assert "\n" not in line
    with pytest.raises(BenchError, match="is not a folder"):
        models.describe(TINY, Sources(checkpoints=tmp_path / "nowhere"))


def test_damaged_and_foreign_checkpoints_are_refused_by_name(tmp_path, small):
    good = small.state_dict()
    whole = tmp_path / "whole.safetensors"
    save_file(good, whole)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-100])
    lacking = tmp_path / "lacking.safetensors"
    save_file({name: value for name, value in good.items() if name != "head.weight"}, lacking)
    shaped = tmp_path / "shaped.safetensors"
    save_file({**good, "head.bias": torch.zeros(7)}, shaped)
    extra = tmp_path / "extra.pth"
    torch.save({**good, "stranger": torch.zeros(1)}, extra)
    text = tmp_path / "text.pth"
    text.write_text("not a checkpoint")
    empty = tmp_path / "empty.pth"
    empty.touch()
    values = tmp_path / "values.pth"
    torch.save({"epoch": 3}, values)
    for path, message in {
        cut: "no readable checkpoint",
        lacking: "lacks head.weight",
        shaped: r"head.bias is \(7,\), the model's \(5,\)",
        extra: "also holds stranger",
        text: "no readable checkpoint",
        empty: "no readable checkpoint",
        values: "holds no state dict",
    }.items():
        with pytest.raises(BenchError, match=message) as refusal:
            weights.load_weights(small, path)
        assert path.name in str(refusal.value) and "\n" not in str(refusal.value)
    weights.load_weights(small, whole)


class Malice:
    """What unpickling would run."""

    def __reduce__(self):
        return (open, ("unpickled", "w"))


def test_a_checkpoint_that_carries_code_is_not_run(tmp_path, monkeypatch, small):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"model": Malice()}))
    with pytest.raises(BenchError, match="no readable checkpoint"):
        weights.load_weights(small, path)
    torch.save({"model": Malice()}, path)
    with pytest.raises(BenchError, match="no readable checkpoint"):
        weights.load_weights(small, path)
    assert not (tmp_path / "unpickled").exists()

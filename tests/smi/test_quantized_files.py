"""QuantizedViT.save and smi.load_quantized: a file that needs nothing else, and the files that are refused."""

import json
import os

import pytest
import torch
from quantized_models import KINDS, images_for, pictures_for, quantized, vit
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import smi


@pytest.fixture(scope="module")
def small():
    return quantized(weight_bits=4)


@pytest.fixture
def saved(small, tmp_path):
    path = tmp_path / "vit.safetensors"
    small.save(path)
    return path


def contents(path):
    with safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return tensors, json.loads(file.metadata()["description"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back_to_the_bit(kind, tmp_path):
    small = quantized(kind, 4, 8)
    small.save(tmp_path / "vit.safetensors")
    loaded = smi.load_quantized(tmp_path / "vit.safetensors")
    pictures = pictures_for(small)
    assert loaded(pictures).equal(small(pictures))
    there, here = loaded.state_dict(), small.state_dict()
    assert there.keys() == here.keys() and all(there[name].equal(here[name]) for name in here)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("quantizer", sorted(smi.QUANTIZERS))
def test_every_quantizer_and_bit_width_comes_back(bits, quantizer, tmp_path):
    small = quantized("no_bias", bits, bits, quantizer)
    small.save(tmp_path / "vit.safetensors")
    loaded = smi.load_quantized(tmp_path / "vit.safetensors")
    pictures = pictures_for(small)
    assert loaded(pictures).equal(small(pictures)) and loaded.recipe == small.recipe
    assert (loaded.weight_bits, loaded.activation_bits) == (bits, bits)


def test_a_loaded_file_is_saved_to_the_same_bytes(small, saved, tmp_path):
    smi.load_quantized(saved).save(tmp_path / "again.safetensors")
    (tensors, text), (again, same) = contents(saved), contents(tmp_path / "again.safetensors")
    assert all(tensors[name].equal(again[name]) for name in tensors)
    assert {**text, "data": 0, "checksum": 0} == {**same, "data": 0, "checksum": 0}


def test_it_describes_itself(saved):
    _, text = contents(saved)
    assert text["format"] == "smi.quantized" and text["version"] == 1
    assert (text["weight_bits"], text["activation_bits"], text["quantizer"]["name"]) == (4, 8, "psaq")
    assert text["architecture"]["width"] == 16 and text["architecture"]["depth"] == 2
    assert len(text["normalisation"]["mean"]) == len(text["normalisation"]["std"]) == 3
    assert text["calibration"]["images"] == 8 and text["calibration"]["patches_of_each"] == [16, 16]


def test_it_says_how_the_images_were_made(tmp_path):
    model = vit()
    images = smi.invert(
        model,
        count=2,
        recipe=smi.recipe("deepinversion", iterations=3),
        stopping=smi.Stopping(at=(1,), drop=0.3),
    )
    smi.quantize(model, images, 8, 8).save(tmp_path / "vit.safetensors")
    made = smi.load_quantized(tmp_path / "vit.safetensors").calibrated_on["made"]
    assert made["seed"] == images.made["seed"] and "history" not in made


def test_normalisation_and_data_config_come_along(tmp_path):
    model = vit()
    model.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "label_names": ["a", "b"]}
    smi.quantize(model, images_for(model), 8, 8).save(tmp_path / "vit.safetensors")
    loaded = smi.load_quantized(tmp_path / "vit.safetensors")
    assert [t.flatten().tolist() for t in smi.vit.normalisation(loaded)] == [
        t.flatten().tolist() for t in smi.vit.normalisation(model)
    ]
    assert loaded.pretrained_cfg["label_names"] == ["a", "b"]


def test_four_bits_take_half_a_byte(small, saved):
    tensors, _ = contents(saved)
    assert tensors["model.blocks.0.attn.qkv.codes"].numel() == 3 * 16 * 16 / 2
    layer = small.blocks[0].attn.qkv
    assert smi.load_quantized(saved).blocks[0].attn.qkv.codes.equal(layer.codes)


def test_zeros_of_symmetric_weights_are_left_out(saved):
    with safe_open(str(saved), framework="pt") as file:
        names = set(file.keys())
    layers = {name.removesuffix(".codes") for name in names if name.endswith(".codes")}
    assert any("blocks." in layer for layer in layers)
    assert not names & {f"{layer}.{part}" for layer in layers for part in ("zero", "offset")}


def test_the_published_codes_stem_comes_along(tmp_path):
    model = vit()
    smi.quantize(model, images_for(model), 8, 8, deviations=["whole_stem"]).save(tmp_path / "v.safetensors")
    loaded = smi.load_quantized(tmp_path / "v.safetensors")
    assert loaded.whole_stem and loaded.calibrated_on["deviations"] == ["whole_stem"]


# ---- what is refused, in one line, with nothing half-written


def refused(path, said, error=smi.InvalidFile):
    with pytest.raises(error, match=said) as caught:
        smi.load_quantized(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(saved, share):
    saved.write_bytes(saved.read_bytes()[: int(share * saved.stat().st_size)])
    refused(saved, f"{saved.name}: not a file of smi or damaged")


def test_a_changed_byte_is_noticed(saved):
    data = bytearray(saved.read_bytes())
    data[-5] ^= 1
    saved.write_bytes(data)
    refused(saved, "was changed after it was written")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("weight_bits", 5, "was changed after it was written"),
        ("version", 2, "is of version 2 of the format, this smi reads version 1"),
        ("format", "other", "holds no quantized model"),
    ],
)
def test_a_changed_description_is_noticed(saved, field, value, said):
    tensors, text = contents(saved)
    save_file(tensors, saved, metadata={"description": json.dumps({**text, field: value})})
    refused(saved, said)


def test_other_files_are_refused(tmp_path):
    refused(tmp_path / "none.safetensors", "no such file")
    images_for(vit()).save(tmp_path / "images.safetensors")
    refused(tmp_path / "images.safetensors", "holds no quantized model")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle.pt")
    refused(tmp_path / "pickle.pt", "not a file of smi or damaged")


def test_a_file_that_is_there_is_kept(small, saved):
    before = saved.read_bytes()
    with pytest.raises(smi.InvalidFile, match="is there already; give another name, or overwrite=True"):
        small.save(saved)
    assert saved.read_bytes() == before
    small.save(saved, overwrite=True)
    assert saved.read_bytes() == before


def test_what_is_not_calibrated_is_not_saved(tmp_path):
    with pytest.raises(smi.NotCalibrated):
        smi.QuantizedViT(vit(), 8, 8).save(tmp_path / "vit.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_part_that_cannot_be_described_is_named(tmp_path):
    class Own(nn.ReLU):
        pass

    model = vit(act_layer=Own)
    with pytest.raises(
        smi.UnsupportedModel, match=r"blocks\.0\.mlp\.act is a .*Own, which no file can describe"
    ):
        smi.quantize(model, images_for(model), 8, 8).save(tmp_path / "vit.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(small, tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(smi.InvalidFile, match="could not be written \\(No space left on device\\)"):
        small.save(tmp_path / "vit.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(small, tmp_path):
    with pytest.raises(smi.InvalidFile, match="there is no folder"):
        small.save(tmp_path / "none" / "vit.safetensors")

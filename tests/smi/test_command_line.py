"""The shell commands: what they write and print, and bad input as one line with exit code 2."""

import re
import subprocess
import sys

import pytest
import timm
import torch
from PIL import Image
from quantized_models import quantized
from safetensors.torch import save_file

import smi
from smi.command_line.main import main

pytest.importorskip("onnxruntime")

TINY = "test_vit"  # timm's own, 160 x 160 pixels, for tests
FEW = ["--count", "2", "--iterations", "4"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model(TINY, num_classes=2).state_dict(), path)
    return path


@pytest.fixture
def pictures(tmp_path):
    for shade, name in ((40, "ant"), (200, "bee")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (180, 170), (shade, 90 * index, 7)).save(
                tmp_path / "pictures" / name / f"{index}.png"
            )
    return tmp_path / "pictures"


@pytest.fixture
def saved(tmp_path):
    quantized("plain", 4, 8).save(tmp_path / "vit.safetensors")
    return tmp_path / "vit.safetensors"


def refused(capsys, arguments, said):
    assert main([str(one) for one in arguments]) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("smi: error: ")]
    assert len(lines) == 1 and re.search(said, lines[0]) and "Traceback" not in error


def test_from_weights_to_a_file(checkpoint, pictures, tmp_path, capsys):
    out = tmp_path / "vit.onnx"
    arguments = [
        "quantize",
        TINY,
        "--checkpoint",
        checkpoint,
        "--bits",
        "W4/A8",
        "--out",
        out,
        "--data",
        pictures,
        *FEW,
    ]
    assert main([str(one) for one in arguments]) == 0
    said = capsys.readouterr().out
    assert out.exists() and re.search(r"profile integer, \d+ integer matrix products\n", said)
    for line in (r"seconds         weights [\d.]+, inversion [\d.]+, calibration [\d.]+, file [\d.]+",
                 r"size            [\d.]+ MB, \.?0?\.\d\d of fp32's [\d.]+ MB",
                 r"agreement       [\d.]+% of 2 inverted images, logits [\d.]+% from full precision",
                 r"pictures        the same answer as full precision on [\d.]+% of 4",
                 r"top-1           [\d.]+%, full precision [\d.]+%",
                 r"speed           [\d.]+ ms an image, fp32 [\d.]+ ms \([\d.]+x\)"):  # fmt: skip
        assert re.search(line, said), line
    assert main(["show", str(out)]) == 0
    assert "bits            W4/A8, quantizer mse_inputs" in capsys.readouterr().out


def test_a_saved_model_is_shown_and_exported(saved, tmp_path, capsys):
    assert main(["show", str(saved)]) == 0
    said = capsys.readouterr().out
    assert "W4/A8, quantizer psaq" in said and re.search(r"blocks\.0\.norm1_out +-?[\d.]+ +[\d.]+", said)
    out = tmp_path / "vit.onnx"
    assert main(["export", str(saved), "--out", str(out), "--pack", "int4"]) == 0
    assert out.exists() and "10 quantized ones in float" in capsys.readouterr().out


def test_images_as_a_grid_and_as_a_file(checkpoint, tmp_path, capsys):
    for name in ("grid.png", "images.safetensors"):
        arguments = ["invert", TINY, "--checkpoint", str(checkpoint), "--out", str(tmp_path / name), *FEW]
        assert main(arguments) == 0
    assert Image.open(tmp_path / "grid.png").size[1] >= 160
    assert smi.SyntheticImages.load(tmp_path / "images.safetensors").kept is not None
    capsys.readouterr()
    assert main(["show", str(tmp_path / "images.safetensors")]) == 0
    assert "2 of [3, 160, 160]" in capsys.readouterr().out


def test_bad_input_is_one_line(saved, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    out = tmp_path / "new.onnx"
    quantize = ["quantize", TINY, "--checkpoint", checkpoint, "--out", out]
    refused(capsys, ["quantize", "no_such_vit", "--out", out], "neither a folder nor a model of timm")
    refused(capsys, [*quantize, "--bits", "8"], "--bits is '8'; allowed: W2/A2 to W8/A8")
    refused(capsys, [*quantize, "--quantizer", "other"], "unknown quantizer 'other'; allowed: psaq")
    refused(capsys, [*quantize, "--iterations", "many"], "--iterations is 'many'; allowed: quick, paper")
    refused(capsys, [*quantize, "--data", tmp_path / "none"], "is no folder")
    refused(capsys, [*quantize, "--random-weights"], "contradict each other")
    refused(capsys, [*quantize[:-1], tmp_path / "vit.txt"], "ends in .onnx or .safetensors")
    refused(
        capsys,
        [*quantize[:-1], saved],
        "is there already; give another name, or overwrite=True \\(--force\\)",
    )
    refused(capsys, ["quantize", TINY, "--checkpoint", saved, "--out", out], "does not fit test_vit")
    refused(
        capsys, ["export", checkpoint, "--out", out], "not a file of smi or damaged|holds no quantized model"
    )
    refused(capsys, ["show", tmp_path / "none.onnx"], "no such file")
    assert not out.exists()


def test_force_writes_over_a_file_and_a_range_can_be_reduced(saved, tmp_path, capsys):
    out, reduced = tmp_path / "vit.onnx", tmp_path / "reduced.onnx"
    assert main(["export", str(saved), "--out", str(out)]) == 0
    refused(capsys, ["export", saved, "--out", out], "is there already")
    assert main(["export", str(saved), "--out", str(out), "--force"]) == 0
    assert main(["export", str(saved), "--out", str(reduced), "--reduce-range"]) == 0
    assert reduced.exists()


def test_a_file_that_holds_other_things_than_tensors_is_no_state_dict(tmp_path, capsys):
    torch.save({"epoch": 3, "name": "vit"}, tmp_path / "numbers.pt")
    arguments = ["quantize", TINY, "--checkpoint", tmp_path / "numbers.pt", "--out", tmp_path / "v.onnx"]
    refused(capsys, arguments, "holds no state_dict")


def test_without_the_extra_quantize_says_so_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr("smi.command_line.quantize.load", lambda options: pytest.fail("began to work"))
    arguments = ["quantize", TINY, "--random-weights", "--out", tmp_path / "v.onnx"]
    refused(capsys, arguments, r"pip install .*\[onnx\]")


def test_a_checkpoint_of_objects_is_not_unpickled(tmp_path, capsys):
    torch.save({"model": timm.create_model(TINY)}, tmp_path / "objects.pt")
    arguments = ["quantize", TINY, "--checkpoint", tmp_path / "objects.pt", "--out", tmp_path / "v.onnx"]
    refused(capsys, arguments, "holds more than tensors, which is not read")


@pytest.mark.slow
def test_it_is_a_command_of_its_own(saved):
    done = subprocess.run([sys.executable, "-m", "smi", "show", str(saved)], capture_output=True, text=True)
    assert done.returncode == 0 and "W4/A8" in done.stdout

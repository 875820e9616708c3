"""ONNX files that are refused, in one line, with nothing half-written; and the published vectors through one."""

import errno
import os
import re
import sys
from pathlib import Path

import numpy
import pytest
import torch
from quantized_models import quantized, vit

import smi
from smi.quantization.deployment.runtime import OnnxViT, describe
from smi.quantizers import ActivationQuantizer

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.filterwarnings("ignore:this CPU has no VNNI")
VECTORS = Path(__file__).parents[1] / "golden" / "vectors"


@pytest.fixture(scope="module")
def small():
    return quantized(weight_bits=4)


@pytest.fixture
def file(small, tmp_path):
    small.export(tmp_path / "vit.onnx")
    return tmp_path / "vit.onnx"


def refused(error, said, call):
    with pytest.raises(error, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("how", "said"),
    [({"profile": "fast"}, "unknown profile 'fast'; allowed: integer, exact"),
     ({"pack": "int2"}, "unknown packing 'int2'; allowed: int8, int4")],
)  # fmt: skip
def test_unknown_choices_are_named(small, tmp_path, how, said):
    refused(smi.InvalidSetting, said, lambda: small.export(tmp_path / "vit.onnx", **how))
    assert not list(tmp_path.iterdir())


def test_int4_holds_four_bits(tmp_path):
    small = quantized("plain", 5, 8)
    said = "pack='int4' holds weights of up to 4 bits, these have 5"
    refused(smi.InvalidSetting, said, lambda: small.export(tmp_path / "vit.onnx", pack="int4"))


def test_what_is_not_calibrated_is_not_exported(tmp_path):
    refused(
        smi.NotCalibrated, "not calibrated", lambda: smi.QuantizedViT(vit(), 8, 8).export(tmp_path / "v.onnx")
    )
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_kept(small, file):
    before = file.read_bytes()
    refused(smi.InvalidFile, "is there already", lambda: small.export(file))
    assert file.read_bytes() == before
    small.export(file, overwrite=True)
    assert list(file.parent.iterdir()) == [file]


def test_without_the_extra_one_line_says_so(small, file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    said = r"ONNX files need more packages: pip install '\.\[onnx\]'"
    refused(smi.MissingExtra, said, lambda: small.export(tmp_path / "other.onnx"))
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused(smi.MissingExtra, "running ONNX files needs more packages", lambda: OnnxViT(file))


def test_a_full_disk_leaves_nothing(small, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(onnx, "save_model", full)
    refused(smi.InvalidFile, "No space left on device", lambda: small.export(tmp_path / "vit.onnx"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_files_are_refused(file, share):
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    refused(
        smi.InvalidFile,
        "no ONNX file, or damaged|not one that smi wrote",
        lambda: OnnxViT(file),
    )


def test_changed_weights_are_noticed(file):
    model = onnx.load(file)
    weight = next(one for one in model.graph.initializer if one.name == "head.weight.int8")
    weight.raw_data = bytes(len(weight.raw_data))
    onnx.save(model, file)
    refused(smi.InvalidFile, "was changed after it was written", lambda: OnnxViT(file))


def test_other_files_are_refused(tmp_path, small):
    refused(smi.InvalidFile, "no such file", lambda: describe(tmp_path / "none.onnx"))
    small.save(tmp_path / "vit.safetensors")
    refused(smi.InvalidFile, "no ONNX file", lambda: describe(tmp_path / "vit.safetensors"))


def test_a_newer_opset_than_the_runtimes_is_one_line(file):
    model = onnx.load(file)
    model.opset_import[0].version = 99
    onnx.save(model, file)
    refused(
        smi.InvalidFile,
        f"onnxruntime {re.escape(onnxruntime.__version__)} cannot run it",
        lambda: OnnxViT(file),
    )


def test_images_of_another_size_are_refused(file):
    refused(smi.InvalidImages, r"images are \[1, 3, 8, 8\]", lambda: OnnxViT(file)(torch.zeros(1, 3, 8, 8)))


@pytest.mark.skipif(os.environ.get("SMI_GOLDEN_VECTORS") is not None, reason="the vectors are elsewhere")
def test_the_published_vectors_through_onnx():
    """ONNX rounds x / scale and then adds zero, psaq's formula rounds the sum: a step apart at exact ties only."""
    from smi.quantization.deployment.operators import quantizer
    from smi.quantization.deployment.writer import GraphWriter

    golden = numpy.load(VECTORS / "quantizers.npz", allow_pickle=False)
    cases = [match for name in golden.files if (match := re.fullmatch(r"act_(.+)_a(\d)", name))]
    assert len(cases) > 4
    for match in cases:
        values, bits = torch.from_numpy(golden[f"act_{match[1]}_in"]), int(match[2])
        module = ActivationQuantizer(bits, "clamped_zero")
        module(values)
        module.freeze("case")
        graph = GraphWriter()
        result = quantizer(graph, "x", module, "case")
        of = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, values.shape)
            for name in ("x", result)
        ]
        proto = onnx.helper.make_graph(graph.nodes, "g", of[:1], of[1:], list(graph.constants.values()))
        model = onnx.helper.make_model(proto, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
        run = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        ours = torch.from_numpy(run.run(None, {"x": values.numpy()})[0])
        apart = (ours - torch.from_numpy(golden[match[0]])).abs() / module.scale
        steps = values / module.scale
        tie = (steps - steps.floor() - 0.5).abs() < 1e-3
        assert (apart[~tie] < 1e-3).all() and (apart <= 1.001).all()

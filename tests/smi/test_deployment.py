"""QuantizedViT.export: two independent readers run the same file and agree with the simulation of it."""

import warnings
from collections import Counter

import pytest
import torch
from quantized_models import KINDS, images_for, pictures_for, quantized, random_pixels, vit

import smi
from smi.quantization import export_float
from smi.quantization.deployment import runtime
from smi.quantization.deployment.runtime import OnnxViT, session

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SAID = "this CPU has no VNNI"  # on some machines, and tested below
pytestmark = pytest.mark.filterwarnings(f"ignore:{SAID}")


def openvino_logits(path, image: torch.Tensor) -> torch.Tensor:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return torch.from_numpy(core.compile_model(core.read_model(path), "CPU", exact)(image.numpy())[0].copy())


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Relative distance. A value at a tie between two levels may fall to either side: with widths of 16, up to .02."""
    assert one.shape == other.shape
    return float((one - other).norm() / other.norm())


def operators(path, folder) -> Counter:
    """How often each operator runs, once onnxruntime has optimised the graph."""
    session(path, threads=1, optimised=folder / "optimised.onnx")
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


@pytest.fixture(scope="module")
def small():
    return quantized(weight_bits=4)


@pytest.fixture(scope="module")
def file(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("deployed") / "vit.onnx"
    small.export(path)
    return path


# ---- it computes what the simulation computes


@pytest.mark.parametrize("profile", ["integer", "exact"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_readers_agree_with_the_simulation(kind, profile, tmp_path):
    small = quantized(kind, 4, 8)
    written = small.export(tmp_path / "vit.onnx", profile)
    assert written.integer and not written.in_float
    pictures = pictures_for(small)
    simulated = small.deployed(profile)(pictures)
    assert apart(OnnxViT(written.path, threads=1)(pictures), simulated) < 0.02
    assert apart(openvino_logits(written.path, pictures), simulated) < 0.02


@pytest.mark.parametrize("bits", [(2, 8), (3, 3), (7, 6), (8, 8), (8, 4)])
def test_every_bit_width_is_exact(bits, tmp_path):
    """Activations of fewer bits are uint8 with fewer levels; weights of 8 bits saturate nowhere in smi's sessions."""
    small = quantized("plain", *bits)
    small.export(tmp_path / "vit.onnx", "exact")
    pictures = pictures_for(small)
    assert apart(OnnxViT(tmp_path / "vit.onnx", 1)(pictures), small(pictures)) < 0.02


def test_the_exact_profile_is_the_whole_simulation(small):
    pictures = pictures_for(small)
    assert small.deployed("exact")(pictures).equal(small(pictures))


def test_the_integer_profile_is_a_placement_of_quantize(small):
    """psaq with its other quantizers dropped is what smi.quantize makes of that placement, to the bit."""
    model = vit()
    inputs = smi.quantizer("psaq", placement="inputs")
    alike = smi.quantize(model, images_for(model), 4, 8, quantizer=inputs)
    pictures = pictures_for(small)
    assert small.deployed("integer")(pictures).equal(alike(pictures))
    assert not small.deployed("integer")(pictures).equal(small(pictures))


def test_any_batch_size(small, file):
    run, pictures = OnnxViT(file, 1), pictures_for(small, 5)
    assert apart(torch.cat([run(one[None]) for one in pictures]), run(pictures)) < 1e-6


def test_normalisation_inside_the_file(tmp_path):
    model = vit()
    model.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    small = smi.quantize(model, images_for(model), 4, 8)
    small.export(tmp_path / "vit.onnx", preprocess=True)
    pixels = random_pixels(4, 3, 16, 16)
    mean, std = smi.vit.normalisation(model)
    run = OnnxViT(tmp_path / "vit.onnx", 1)
    assert run.input.name == "pixels"
    assert apart(run(pixels), small.deployed()((pixels - mean) / std)) < 0.02


def test_weights_packed_as_int4(tmp_path):
    small = quantized("plain", 4, 8)
    packed = small.export(tmp_path / "int4.onnx", pack="int4")
    plain = small.export(tmp_path / "int8.onnx")
    pictures = pictures_for(small)
    assert packed.bytes < plain.bytes
    assert set(packed.in_float.values()) == {"weights packed as int4 are unpacked to float"}
    for read in (openvino_logits, lambda path, x: OnnxViT(path, 1)(x)):
        assert apart(read(packed.path, pictures), small.deployed()(pictures)) < 0.02


def test_seven_bits_do_not_saturate(tmp_path):
    """As onnxruntime runs it by itself, on x86 without VNNI too: 255 * 64 * 2 fits in 16 bits."""
    small = quantized("plain", 8, 8)
    small.export(tmp_path / "vit.onnx", reduce_range=True)
    deployed, pictures = small.deployed(reduce_range=True), pictures_for(small)
    assert deployed.weight_bits == 7 and small.weight_bits == 8
    assert max(int(layer.codes.int().abs().max()) for _, layer in deployed.layers()) <= 64
    assert apart(OnnxViT(tmp_path / "vit.onnx", 1, precise=False)(pictures), deployed(pictures)) < 0.02


def test_float_files_compute_the_model(tmp_path):
    model = vit(reg_tokens=2)
    export_float(model, tmp_path / "vit.onnx")
    image = random_pixels(3, 3, 16, 16)
    with torch.no_grad():
        assert apart(OnnxViT(tmp_path / "vit.onnx", 1)(image), model(image)) < 1e-5


# ---- on which kernels


@pytest.mark.parametrize(
    ("kind", "products"), [("plain", 10), ("registers", 10), ("distilled", 11), ("backbone", 9)]
)
def test_every_quantized_product_runs_on_integers(kind, products, tmp_path):
    small = quantized(kind, 8, 8)
    written = small.export(tmp_path / "vit.onnx")
    found = operators(written.path, tmp_path)
    assert found["MatMulIntegerToFloat"] == products == len(written.integer)
    in_float = found["MatMul"] + found["FusedMatMul"] + found["Gemm"]
    assert in_float == 4  # query x key and softmax x value of two blocks, which the profile does not quantize
    assert not found["DequantizeLinear"]


def test_attentions_products_too_where_their_operands_are_quantized(tmp_path):
    small = quantized("plain", 8, 8, smi.quantizer("minmax_inputs", placement="operands"))
    written = small.export(tmp_path / "vit.onnx")
    assert len(written.integer) == 14 and not written.in_float
    found = operators(written.path, tmp_path)
    integer = found["MatMulIntegerToFloat"] + found["QLinearMatMul"]
    assert integer == 14 and not found["MatMul"] + found["FusedMatMul"] + found["Gemm"]


@pytest.mark.parametrize(
    ("quantizer", "because", "count"),
    [("repq", "the reparameterised zero point is no whole number", 4),
     ("repq", "powers of sqrt 2", 2),
     ("slides", "rounds down from the least value", 10)],
)  # fmt: skip
def test_what_integers_cannot_express_runs_in_float_and_says_so(quantizer, because, count, tmp_path):
    small = quantized("plain", 4, 8, quantizer)
    with pytest.warns(UserWarning, match=f"quantized matrix products run in float.*{because}"):
        written = small.export(tmp_path / "vit.onnx")
    assert sum(because in why for why in written.in_float.values()) >= count - 1
    pictures = pictures_for(small)
    for precise in (True, False):
        run = OnnxViT(written.path, 1, precise)
        assert apart(run(pictures), small.deployed()(pictures)) < 0.02
    assert apart(openvino_logits(written.path, pictures), small.deployed()(pictures)) < 0.02
    assert set(run.about["products_in_float"]) == set(written.in_float)


# ---- what it says


def test_a_file_describes_itself(file):
    about = OnnxViT(file).about
    assert (about["weight_bits"], about["activation_bits"], about["profile"]) == (4, 8, "integer")
    assert about["calibration"]["images"] == 8 and about["products"] == 10
    properties = {one.key: one.value for one in onnx.load(file).metadata_props}
    assert properties["bits"] == "W4/A8" and properties["classes"] == "5"


def test_exporting_says_nothing(small, tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small.export(tmp_path / "vit.onnx")
    assert capfd.readouterr() == ("", "")


def test_the_checker_passes(file):
    onnx.checker.check_model(str(file), full_check=True)


@pytest.mark.parametrize(
    ("flags", "warned"), [("avx2 fma", True), ("avx2 avx_vnni", False), ("avx512_vnni", False)]
)
def test_cpus_whose_kernels_saturate_are_told(flags, warned, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu {flags}\n")
    monkeypatch.setattr("smi.quantization.deployment.processor._CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    small = quantized("plain", 8, 8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small.export(tmp_path / "vit.onnx")
        small.export(tmp_path / "reduced.onnx", reduce_range=True)
    said = [str(one.message) for one in caught]
    assert len(said) == warned and all(SAID in one and "reduce_range=True" in one for one in said)


def test_weights_stand_beside_a_file_that_would_be_too_large(small, tmp_path, monkeypatch):
    monkeypatch.setattr("smi.quantization.deployment.export._LARGEST", 1000)
    written = small.export(tmp_path / "vit.onnx")
    assert written.data == tmp_path / "vit.onnx.data" and written.data.exists()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["vit.onnx", "vit.onnx.data"]
    pictures = pictures_for(small)
    assert apart(OnnxViT(written.path, 1)(pictures), small.deployed()(pictures)) < 0.02


def test_sessions_are_kept_from_saturating_where_the_processor_would(tmp_path, monkeypatch):
    """Asked of onnxruntime itself: the option costs half the speed, so that it stands only where it is needed."""
    file = quantized("plain", 8, 8).export(tmp_path / "vit.onnx").path
    asked = {}
    for lacking in (True, False):
        monkeypatch.setattr(runtime, "saturates", lambda lacking=lacking: lacking)
        for precise in (None, True, False):
            options = runtime.session(file, 1, precise).get_session_options()
            try:
                asked[lacking, precise] = options.get_session_config_entry("session.x64quantprecision")
            except RuntimeError:  # not set
                asked[lacking, precise] = ""
    assert asked == {
        (True, None): "1", (True, True): "1", (True, False): "",
        (False, None): "", (False, True): "1", (False, False): "",
    }  # fmt: skip

"""RepQ-ViT: single quantizers, every scale and zero point before and after reparameterisation, and the logits."""

import copy
import re

import pytest
import torch
from torch.testing import assert_close

import smi
from smi.quantization import repq
from smi.quantizers import ActivationQuantizer, LogSqrt2Quantizer, quantize_weight

RECIPE = smi.QUANTIZERS["repq"]
PLACES = {  # their name within a block -> ours
    "attn.qkv.input_quantizer": "norm1_out",
    "attn.matmul1.quantizer_A": "attn.query",
    "attn.matmul1.quantizer_B": "attn.key",
    "attn.matmul2.quantizer_A": "attn.softmax",
    "attn.matmul2.quantizer_B": "attn.value",
    "attn.proj.input_quantizer": "attn.mixed",
    "mlp.fc1.input_quantizer": "norm2_out",
    "mlp.fc2.input_quantizer": "mlp.act_out",
}
STEM_AND_HEAD = {
    "patch_embed.proj.input_quantizer": "quantizers.image",
    "head.input_quantizer": "quantizers.normed",
}


def our_name(published: str) -> str:
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", published):
        return f"blocks.{match[1]}.{PLACES[match[2]]}"
    return STEM_AND_HEAD[published]


@pytest.fixture(scope="module")
def golden(vectors):
    return vectors("repq")


@pytest.fixture(scope="module")
def model(golden, golden_model):
    """The reference model with norms whose channels are unequal, as in trained models."""
    model = copy.deepcopy(golden_model)
    norms = {
        name.removeprefix("norms_"): value for name, value in golden.items() if name.startswith("norms_")
    }
    assert not model.load_state_dict(norms, strict=False).unexpected_keys
    return model


@pytest.fixture(scope="module")
def settings(golden):
    """[(prefix, weight bits, activation bits)]"""
    found = sorted({match[0] for name in golden if (match := re.match(r"w\da\d_", name))})
    assert found
    return [(prefix, int(prefix[1]), int(prefix[3])) for prefix in found]


def cases(golden, pattern):
    found = [match for name in golden if (match := re.fullmatch(pattern, name))]
    assert found
    return found


def calibrated(quantizer, values):
    quantizer(values)
    quantizer.freeze("case")
    return quantizer


def test_uniform_quantizers(golden):
    for match in cases(golden, r"uniform_(\w+)_(tensor|channel)_a(\d)"):
        values = golden[f"act_{match[1]}"]
        quantizer = calibrated(
            ActivationQuantizer(int(match[3]), "free_zero", RECIPE.range_of, match[2] == "channel"), values
        )
        assert_close(
            quantizer.scale, golden[f"{match[0]}_scale"].reshape(quantizer.scale.shape), rtol=1e-5, atol=0
        )
        assert_close(quantizer.zero, golden[f"{match[0]}_zero"].reshape(quantizer.zero.shape), rtol=0, atol=0)
        assert_close(quantizer(values), golden[match[0]], rtol=1e-5, atol=1e-6)


def test_weights(golden):
    for match in cases(golden, r"weight_w(\d)"):
        bits = int(match[1])
        ours = quantize_weight(golden[f"weight_in_{bits}"], bits, "asymmetric", "free_zero", RECIPE.range_of)
        assert_close(ours, golden[match[0]], rtol=1e-5, atol=1e-6)


def test_log_sqrt2(golden):
    for match in cases(golden, r"logsqrt2_a(\d)"):
        quantizer = calibrated(LogSqrt2Quantizer(int(match[1]), RECIPE.range_of), golden["softmax_in"])
        assert_close(quantizer.scale, golden[f"{match[0]}_scale"], rtol=1e-5, atol=0)
        assert_close(quantizer(golden["softmax_in"]), golden[match[0]], rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def calibrations(golden, model, settings, quantized_on):
    """By setting: the quantized model, its ranges per channel, and the reparameterised model in full precision."""

    def calibrate(*bits):
        seen, sound = [], repq.reparameterised

        def watched(given, fits):
            changed, whole = sound(given, fits)
            seen.extend([fits, changed])
            return changed, whole

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(repq, "reparameterised", watched)
            return quantized_on(model, golden["calib"], *bits, quantizer="repq"), *seen

    return {prefix: calibrate(*bits) for prefix, *bits in settings}


def agreement(ours, theirs, tolerance):
    """The share of names whose values agree to a relative tolerance; none may be far off.

    4-bit values summed with weights that are powers of sqrt 2 lie exactly half-way between two levels quite often.
    There the last bit of a sum, which depends on the processor, decides, and what follows moves.
    """
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert_close(
            ours[name].reshape(value.shape), value, rtol=0.2, atol=2 if "zero" in name else 0, msg=name
        )
    near = [
        torch.allclose(ours[name].reshape(value.shape), value, rtol=tolerance, atol=tolerance)
        for name, value in theirs.items()
    ]
    return sum(near) / len(near)


def most_agree_fully(shares):
    assert min(shares.values()) >= 0.4, shares
    assert sum(share == 1 for share in shares.values()) > len(shares) / 2, shares


def test_scales_and_zeros_per_channel(golden, calibrations):
    shares = {}
    for prefix, (_, fits, _) in calibrations.items():
        ours, theirs = {}, {}
        for match in cases(golden, rf"{prefix}block(\d+)_(qkv|fc1)_channel_(scale|zero)"):
            fit = fits[f"blocks.{match[1]}.{'norm1_out' if match[2] == 'qkv' else 'norm2_out'}"]
            ours[match[0]], theirs[match[0]] = getattr(fit, match[3]), golden[match[0]]
        shares[prefix] = agreement(ours, theirs, 1e-5)
    most_agree_fully(shares)


def test_the_reparameterised_model_is_the_model(golden, model, calibrations):
    for _, _, changed in calibrations.values():
        with torch.no_grad():
            assert_close(changed(golden["test"]), model(golden["test"]), rtol=0, atol=1e-5)
            assert_close(changed(golden["test"]), golden["logits_fp"], rtol=1e-5, atol=1e-5)


def test_every_scale_and_zero(golden, calibrations):
    shares = {}
    for prefix, (small, _, _) in calibrations.items():
        places, ours, theirs = dict(small.activation_quantizers()), {}, {}
        for match in cases(golden, rf"{prefix}(scale|zero|logscale)_(.+)"):
            one = places[our_name(match[2])]
            ours[match[0]], theirs[match[0]] = one.zero if match[1] == "zero" else one.scale, golden[match[0]]
        assert {our_name(name.partition("scale_")[2]) for name in theirs if "scale_" in name} == places.keys()
        shares[prefix] = agreement(ours, theirs, 1e-5)
    most_agree_fully(shares)


def test_logits(golden, calibrations):
    agreeing = {}
    for prefix, (small, _, _) in calibrations.items():
        with torch.no_grad():
            logits = small(golden["test"])
        theirs = golden[f"{prefix}logits"]
        assert (logits - theirs).norm() < 0.5 * (theirs - golden["logits_fp"]).norm(), prefix
        agreeing[prefix] = torch.allclose(logits, theirs, rtol=1e-4, atol=1e-5)
    assert sum(agreeing.values()) > len(agreeing) / 2, agreeing

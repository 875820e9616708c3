"""Quantizers bit for bit up to rounding at ties; the quantized ViT range by range and in its logits."""

import re

import pytest
import torch
from torch.testing import assert_close

from smi.quantizers import ActivationQuantizer, quantize_weight
from smi.vit import adapt

PUBLISHED_STEM = {  # their name -> ours, where the name does not change within a block
    "qact_input": "quantizers.image",
    "patch_embed.QuantAct": "quantizers.patches",
    "qact_embed": "quantizers.concatenated",
    "qact_pos": "quantizers.positions",
    "qact1": "quantizers.embedded",
    "qact2": "quantizers.normed",
    "act_out": "quantizers.logits",
}
PUBLISHED_BLOCK = {
    "qact1": "norm1_out",
    "attn.qact1": "attn.qkv_out",
    "attn.qact_attn1": "attn.scores",
    "attn.qact2": "attn.mixed",
    "attn.qact3": "attn.proj_out",
    "qact2": "sum1",
    "qact3": "norm2_out",
    "mlp.QuantAct1": "mlp.act_out",
    "mlp.QuantAct2": "mlp.mlp_out",
    "qact4": "sum2",
}


def our_name(published: str) -> str:
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", published):
        return f"blocks.{match[1]}.{PUBLISHED_BLOCK[match[2]]}"
    return PUBLISHED_STEM[published]


def equal_up_to_ties(ours, golden, scale):
    """Equal up to float32 rounding, or one step of `scale` apart where a value lies half-way between two levels."""
    difference = (ours - golden).abs()
    elsewhere = difference > 1e-6 * golden.abs().clamp_min(scale)
    assert (difference[elsewhere] <= scale * 1.001).all()
    assert elsewhere.float().mean() <= 1e-3  # ties are rare in random numbers


def test_weights_per_channel(vectors):
    golden = vectors("quantizers")
    names = [re.fullmatch(r"(.+)_w(\d)", name) for name in golden]
    cases = [(match[1], int(match[2])) for match in names if match]
    assert {bits for _, bits in cases} >= {2, 3, 4, 8} and {layer for layer, _ in cases} >= {"linear", "conv"}
    for layer, bits in cases:
        ours = quantize_weight(golden[f"{layer}_in"], bits)
        assert_close(
            ours, golden[f"{layer}_w{bits}"], rtol=1e-6, atol=1e-7, msg=lambda m, c=(layer, bits): f"{c}: {m}"
        )


def test_activations_per_tensor(vectors):
    golden = vectors("quantizers")
    names = [re.fullmatch(r"act_(.+)_a(\d)(_clipped)?", name) for name in golden]
    cases = [match for match in names if match]
    assert {match[1] for match in cases} >= {"mixed", "positive", "negative", "image"}
    for match in cases:
        values, bits = golden[f"act_{match[1]}_in"], int(match[2])
        low, high = values.min(), values.max()
        if match[3]:
            low = low * (0.5 if low < 0 else 1.2)
            high = high * (0.5 if high > 0 else 1.2)
        quantizer = ActivationQuantizer(bits, "clamped_zero")
        quantizer(torch.stack([low, high]))
        quantizer.freeze("case")
        equal_up_to_ties(quantizer(values), golden[match[0]], ((high - low) / (2**bits - 1)).item())


@pytest.fixture
def calibrate(vectors, golden_model, quantized_on):
    """(weight bits, activation bits, sparse?, whole stem?) -> smi.quantize on the recorded images."""
    golden = vectors("quantized_vit")

    def run(weight_bits, activation_bits, sparse, whole_stem=True):
        kept = golden["kept_tokens_with_cls"][:, 1:] - 1 if sparse else None
        deviations = ["whole_stem"] if whole_stem else []
        return quantized_on(
            golden_model, golden["calib"], weight_bits, activation_bits, kept, deviations=deviations
        )

    return run


def cases_of(golden):
    return sorted({match[0] for name in golden if (match := re.match(r"w\da\d_(dense|sparse)", name))})


def test_every_activation_range(vectors, calibrate):
    golden = vectors("quantized_vit")
    assert {case[:4] for case in cases_of(golden)} >= {"w4a8", "w8a8", "w4a4"}
    for case in cases_of(golden):
        model = calibrate(int(case[1]), int(case[3]), case.endswith("sparse"))
        ours = {name: torch.stack([q.low, q.high]) for name, q in model.activation_quantizers()}
        prefix = f"{case}_range_"
        published = {our_name(n.removeprefix(prefix)): v for n, v in golden.items() if n.startswith(prefix)}
        assert ours.keys() == published.keys()
        for name, range_ in published.items():
            assert_close(ours[name], range_, rtol=1e-4, atol=1e-5, msg=lambda m, c=(case, name): f"{c}: {m}")


def test_quantized_logits(vectors, calibrate):
    golden = vectors("quantized_vit")
    agreeing = []
    for case in cases_of(golden):
        model = calibrate(int(case[1]), int(case[3]), case.endswith("sparse"))
        with torch.no_grad():
            logits = model(golden["test"])
        # Where one tie among some hundred thousand roundings goes the other way, an image's logits move by a step or
        # two. That is rare: most cases agree in nearly all logits, while a quantizer left out moves them everywhere.
        published = golden[f"{case}_logits"]
        steps_apart = ((logits - published) / model.quantizers["logits"].scale).abs()
        assert steps_apart.max() < 5.5, case
        assert (logits - published).norm() < 0.25 * (published - golden["logits_fp"]).norm(), case
        agreeing.append((steps_apart < 0.5).float().mean().item() >= 0.95)
    assert sum(agreeing) > len(agreeing) / 2, dict(zip(cases_of(golden), agreeing, strict=True))


def test_by_the_text_only_the_stem_differs_in_sparse_calibration(calibrate):
    text = dict(calibrate(4, 8, True, whole_stem=False).activation_quantizers())
    code = dict(calibrate(4, 8, True).activation_quantizers())
    differing = {
        name for name in text if (text[name].low, text[name].high) != (code[name].low, code[name].high)
    }
    stem = {f"quantizers.{name}" for name in ("image", "patches", "concatenated", "positions", "embedded")}
    assert differing and differing <= stem


def test_full_precision_logits(vectors, golden_model):
    golden = vectors("quantized_vit")
    with torch.no_grad():
        assert_close(adapt(golden_model).forward(golden["test"]), golden["logits_fp"], rtol=1e-4, atol=1e-5)

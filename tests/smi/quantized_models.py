"""Tiny ViTs of every kind that smi.quantize takes, lively ones, and images to calibrate them on."""

from __future__ import annotations

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from vits_to_quantize import vit as lively_vit

import smi
from smi.class_and_mean import ClassAndMeanViT
from smi.vit import adapt

KINDS = {
    "plain": {},
    "registers": {"reg_tokens": 2},
    "layer_scale": {"init_values": 0.5},
    "qk_norm": {"qk_norm": True},
    "average_pool": {"global_pool": "avg"},
    "average_and_maximum": {"global_pool": "avgmax", "class_token": False},
    "non_square": {"img_size": (16, 24)},
    "no_bias": {"qkv_bias": False},
    "no_positions": {"pos_embed": "none"},
    "no_positions_of_class": {"no_embed_class": True},
    "norm_before": {"pre_norm": True},
    "rms_norm": {"norm_layer": "rmsnorm", "qk_norm": True},
    "gelu_tanh": {"act_layer": "gelu_tanh"},
    "quick_gelu": {"act_layer": "quick_gelu"},
    "one_channel": {"in_chans": 1},
    "distilled": {"cls": VisionTransformerDistilled},
    "class_and_mean": {"cls": ClassAndMeanViT},
    "backbone": {"num_classes": 0},
    "distilled_backbone": {"cls": VisionTransformerDistilled, "num_classes": 0},
}


def vit(**overrides) -> VisionTransformer:
    """vits_to_quantize.vit, with a normalisation of its own where it sees one channel."""
    model = lively_vit(**overrides)
    if overrides.get("in_chans") == 1:
        model.pretrained_cfg = {"mean": (0.5,), "std": (0.25,)}
    return model


def images_for(model, count: int = 8, seed: int = 0) -> smi.SyntheticImages:
    tokens = adapt(model, headless=True)
    pixels = random_pixels(count, tokens.channels, tokens.grid.height, tokens.grid.width, seed=seed)
    return smi.SyntheticImages(pixels, torch.zeros(count, dtype=torch.int64), None, tokens.patch_size)


def random_pixels(*shape: int, seed: int = 5) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def quantized(kind: str = "plain", weight_bits: int = 8, activation_bits: int = 8, quantizer="psaq"):
    model = vit(**KINDS[kind])
    return smi.quantize(model, images_for(model), weight_bits, activation_bits, quantizer=quantizer)


def pictures_for(small: smi.QuantizedViT, count: int = 6) -> torch.Tensor:
    """Normalised images, some pixels beyond the range that was calibrated on."""
    embed = small.model.patch_embed
    mean, std = smi.vit.normalisation(small)
    return 1.1 * (random_pixels(count, embed.proj.in_channels, *embed.img_size) - mean) / std

"""Small ViTs with lively weights, and images for them, for the tests of quantization."""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import smi
from smi.vit import adapt


def vit(cls=VisionTransformer, **overrides) -> VisionTransformer:
    settings = {
        "img_size": 16,
        "patch_size": 4,
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "num_classes": 5,
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = cls(**{**settings, **overrides}).eval()
        for parameter in model.parameters():  # timm's small weights would hide mistakes
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.3)
    return model


def images_for(model, count=8, kept=False):
    grid, generator = adapt(model, headless=True).grid, torch.Generator().manual_seed(0)
    pixels = torch.rand(count, 3, grid.height, grid.width, generator=generator)
    order = torch.rand(count, grid.patches, generator=generator).argsort(1)
    chosen = order[:, :5].sort(1).values if kept else None
    return smi.SyntheticImages(pixels, torch.zeros(count, dtype=torch.int64), chosen, (4, 4))


def inputs_of(images):
    return (images.pixels - 0.5) / 0.5

"""Multiply-accumulates (MACs) of a model: the paper's convention, the exact count, and averages over a run.

The paper's "FLOPs" (Tables 1 and 3) are MACs of linear layers, convolutions and the head plus four operations per
normalised element (LayerNorm, BatchNorm) and one per pooled element of a CNN, without attention's two matrix
products, times 3 (forward and backward with weight gradients), times 128 images (one image for Table 1's
ResNet18). Patch embedding counts every patch of the image, also those
that have stopped. With P patches of the image, N tokens (kept patches and prefix), width D, depth L, K classes:

    MACs = P*(C*p*p)*D + L*N*12*D^2 + K*D + 4*(2L+1)*N*D        FLOPs (G) = 3 * 128 * MACs / 1e9

No weights are needed and none are changed: what has to be run is run on shapes alone (torch's meta device).
"""

from __future__ import annotations

import math
from typing import Any

from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from smi.checks import is_whole
from smi.errors import InvalidSetting, UnsupportedModel
from smi.flops_by_running import Macs, count_by_running, products
from smi.rebirth import Schedule
from smi.vit import adapt

PAPER_BATCH = 128  # images that the paper's figures for ViTs count
PAPER_PASSES = 3  # forward, gradient to the input, gradient to the weights


def count(model: nn.Module, kept: int | None = None, image_size: int | tuple[int, int] | None = None) -> Macs:
    """MACs of one image through a timm VisionTransformer or any CNN.

    kept: number of patches fed forward, of a VisionTransformer only; None is all.
    image_size: pixels, of CNNs only (a VisionTransformer knows its own); default is the timm data config's, or 224.
    Raises InvalidSetting for a kept count that the model does not have, UnsupportedModel by the part's name.
    """
    if isinstance(model, VisionTransformer):
        return _count_vit(model, kept)
    if kept is not None:
        kind = type(model).__name__
        raise UnsupportedModel(f"kept patches are counted for a timm VisionTransformer only, not for {kind}")
    return count_by_running(model, image_size)


def paper_gflops(
    model: nn.Module,
    kept: int | None = None,
    batch: int = PAPER_BATCH,
    *,
    image_size: int | tuple[int, int] | None = None,
) -> float:
    """The paper's FLOPs column in G: 414.20 for DeiT-Tiny, 107.32 with kept=46; arguments as for `count`."""
    return PAPER_PASSES * batch * count(model, kept, image_size).paper / 1e9


def exact_gmacs(
    model: nn.Module,
    kept: int | None = None,
    *,
    embed_kept_only: bool = False,
    image_size: int | tuple[int, int] | None = None,
) -> float:
    """GMACs of one image's forward with attention and without norms: L*(12*N*D^2 + 2*N^2*D) + P*(C*p*p)*D + K*D.

    embed_kept_only: patch embedding of the kept patches alone, as `smi` runs it; the published code embeds all P.
    Of any other model torch's own counter is asked, which sees products of matrices and convolutions wherever they are.
    """
    if kept is None and not _has_closed_form(model):
        return products(model, image_size)[0] / 1e9
    macs = count(model, kept, image_size)
    return (macs.exact - _not_embedded(model, macs, kept, embed_kept_only)) / 1e9


def step_gmacs(
    model: nn.Module,
    kept: int | None = None,
    *,
    weight_gradients: bool = False,
    embed_kept_only: bool = False,
    image_size: int | tuple[int, int] | None = None,
) -> float:
    """GMACs of one image's forward and backward to the pixels, attention included.

    The gradient to a layer's input costs as much as its forward, the gradient to its weights as much again, which
    frozen weights save. Attention's products have no weights: both their inputs are activations, and both need a
    gradient whether weights are frozen or not.
    """
    if kept is None and not _has_closed_form(model):
        return sum(products(model, image_size, weight_gradients)) / 1e9
    macs = count(model, kept, image_size)
    linear = macs.linear - _not_embedded(model, macs, kept, embed_kept_only)
    return (linear * (3 if weight_gradients else 2) + macs.attention * 3) / 1e9


def run_average_gflops(
    model: nn.Module, stopping: Schedule | None, iterations: int, batch: int = PAPER_BATCH
) -> float:
    """The paper's FLOPs in G, averaged over the iterations of a run; the paper prints those of its last stage.

    117.02 for DeiT-Tiny and 1733.63 for DeiT-Base with the paper's schedule over 4000 iterations. The passes that rank
    patches are not counted: few, but for a Stopping with a small `reenter_every`.
    """
    if iterations < 1:
        raise InvalidSetting(f"iterations is {iterations!r}; allowed: a whole number above 0")
    if stopping is None:
        return paper_gflops(model, batch=batch)
    patches = model.patch_embed.num_patches if isinstance(model, VisionTransformer) else 0
    stopping = stopping.resolved(iterations)
    starts = [0, *(min(stop, iterations) for stop in stopping.at or ())]
    kept_counts = [None, *stopping.kept_counts(patches)]
    total = 0.0
    for start, end, kept in zip(starts, [*starts[1:], iterations], kept_counts, strict=True):
        if end > start:
            total += (end - start) * paper_gflops(model, kept, batch)
    return total / iterations


def gflops_per_image(model: nn.Module, stopping: Schedule | None, iterations: int) -> float:
    """The paper's FLOPs in G of a whole inversion, for each image that it finishes.

    A Rebirth finishes `parts` images a trajectory, so that its share of dense inversion, counted in tokens of patches,
    is (parts + 1) / (2 parts^2): .375, .156, .082 for 2, 4, 7.
    """
    images = 1 if stopping is None else stopping.parts
    return run_average_gflops(model, stopping, iterations, 1) * iterations / images


def _has_closed_form(model: nn.Module) -> bool:
    """Whether it is a ViT as the adapter knows them, whose products follow from its sizes."""
    if not isinstance(model, VisionTransformer):
        return False
    try:
        adapt(model, headless=True)
    except UnsupportedModel:
        return False
    return True


def _not_embedded(model: Any, macs: Macs, kept: int | None, embed_kept_only: bool) -> int:
    """MACs of embedding the stopped patches, to be left out."""
    if kept is None or not embed_kept_only:
        return 0
    patches = model.patch_embed.num_patches
    return macs.embedding // patches * (patches - kept)


def _count_vit(model: Any, kept: int | None) -> Macs:
    embed = model.patch_embed
    if type(embed) is not PatchEmbed:
        raise UnsupportedModel(f"patch embedding {type(embed).__name__} is not counted; allowed: PatchEmbed")
    if getattr(model, "attn_pool", None) is not None:
        raise UnsupportedModel(
            f"pooling by {type(model.attn_pool).__name__} is not counted; allowed: token or average"
        )
    patches = embed.num_patches
    if kept is not None and (not is_whole(kept) or not 1 <= kept <= patches):
        raise InvalidSetting(
            f"kept is {kept!r}; allowed: a whole number from 1 to {patches}, the model's patches"
        )
    tokens = (patches if kept is None else kept) + model.num_prefix_tokens

    embedding = patches * embed.proj.weight.numel()
    attention = norms = 0
    blocks = 0
    for block in model.blocks:
        blocks += sum(layer.weight.numel() for layer in block.modules() if isinstance(layer, nn.Linear))
        norms += sum(_norm_width(layer, block.attn) for layer in block.modules())
        attention += 2 * tokens * tokens * block.attn.proj.in_features
    heads = sum(
        layer.weight.numel()
        for layer in (model.head, getattr(model, "head_dist", None))
        if isinstance(layer, nn.Linear)
    )
    norms += _norm_width(model.norm) + _norm_width(model.norm_pre)
    pooled = _norm_width(model.fc_norm) if hasattr(model, "fc_norm") else 0
    return Macs(
        linear=embedding + tokens * blocks + heads,
        embedding=embedding,
        attention=attention,
        norm_elements=tokens * norms + patches * _norm_width(embed.norm) + pooled,
    )


def _norm_width(layer: nn.Module, attention: Any = None) -> int:
    """Elements that a LayerNorm normalises per token; norms of queries and keys see every head."""
    if not isinstance(layer, nn.LayerNorm):
        return 0
    width = math.prod(layer.normalized_shape)
    if attention is not None and layer in (
        getattr(attention, "q_norm", None),
        getattr(attention, "k_norm", None),
    ):
        return width * attention.num_heads
    return width

"""What ranks the patches still in, beside the paper's score: controls, and other criteria from the literature.

All have the form of smi.stopping.Score: (model, image [B, C, H, W], kept int64 [B, K], generator) -> importance [B, K],
greater means "stays". The image is normalised as the model expects it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from smi.adapters import Adapted
from smi.geometry import take_patches


def cls_attention(model: Adapted, image: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
    """Attention of the last block from CLS to each patch, mean over heads, un-jittered (paper section 3)."""
    return model.cls_attention(image, kept)


def least_attention(model: Adapted, image: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
    """Control: keeps what the paper throws away."""
    return -model.cls_attention(image, kept)


def random(model: Adapted, image: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
    """Control: every patch is as likely to stay."""
    return torch.rand(kept.shape, generator=generator, dtype=torch.float32, device="cpu").to(image.device)


def attention_rollout(model: Adapted, image: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
    """How much of CLS's last state flows in from each patch, if attention and shortcuts mix tokens half and half in
    every block: the product of (attention + identity) / 2, attention averaged over heads (Abnar and Zuidema 2020)."""
    flow: Tensor | None = None
    for attention in model.attention_maps(image, kept):
        mixed = (attention + torch.eye(attention.shape[1], device=attention.device)) / 2
        flow = mixed if flow is None else mixed @ flow
    assert flow is not None  # every model has a block
    return flow[:, 0, flow.shape[1] - kept.shape[1] :]


def gradient_norm(model: Adapted, image: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
    """L2 norm of each patch's gradient of the log-probability that the model gives to its own answer (saliency, as
    Simonyan et al. 2014, summed over a patch)."""
    with torch.enable_grad():
        pixels = image.detach().clone().requires_grad_()
        certainty = model(pixels, kept).float().log_softmax(dim=1).amax(dim=1).sum()
        (gradient,) = torch.autograd.grad(certainty, pixels)
    return take_patches(gradient, kept, model.grid).norm(dim=2)


def pixel_contrast(model: Adapted, image: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
    """Standard deviation of a patch's pixels, mean over channels: what needs no model at all."""
    patches = take_patches(image, kept, model.grid).unflatten(2, (model.channels, -1))
    return patches.std(dim=3, correction=0).mean(dim=2)


OF_CLASS_TOKEN = (cls_attention, least_attention, attention_rollout)  # that ask what it attends to

"""Patch-similarity entropy, the loss of PSAQ-ViT: images whose patches answer differently carry information.

Shapes: B images, N tokens, P patches, d head width, G points of the density's grid.
Source: PSAQ-ViT (Li et al., ECCV 2022), section 3.2, as its published code computes it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from smi import kernels
from smi.total_variation import at_least_float32

BANDWIDTH = 0.01
PRECISION = 1 / BANDWIDTH**2
HEIGHT = 1 / (BANDWIDTH * math.sqrt(2 * math.pi))  # of one kernel at its sample
GRID_POINTS = 10
DENSITY_FLOOR = 1e-4  # added to the density, so that its logarithm exists


def mean_over_heads(captured: torch.Tensor, heads: int, prefix_tokens: int) -> torch.Tensor:
    """Attention output per patch: [B, N, heads * d], as it enters the projection -> [B, P, d]."""
    batch, tokens, width = captured.shape
    return captured.reshape(batch, tokens, heads, width // heads)[:, prefix_tokens:].mean(dim=2)


def patch_similarity(outputs: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of every patch with every patch: [B, P, d] -> [B, P, P], by one batched product."""
    unit = torch.nn.functional.normalize(at_least_float32(outputs), dim=-1, eps=1e-8)
    return unit @ unit.transpose(1, 2)


class _KernelDensity(torch.autograd.Function):
    """Gaussian kernel density, point by point: memory is that of the samples, not G times as much."""

    @staticmethod
    def forward(ctx: Any, samples: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(samples, points)
        scratch = torch.empty_like(samples)
        columns = []
        for point in points:
            torch.sub(samples, point, out=scratch)
            columns.append(scratch.square_().mul_(-0.5 / BANDWIDTH**2).exp_().mean(dim=1))
        return torch.stack(columns, dim=1).mul_(HEIGHT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        samples, points = ctx.saved_tensors
        gradient = torch.zeros_like(samples)
        scale = 1 / (samples.shape[1] * BANDWIDTH**3 * math.sqrt(2 * math.pi))
        for index, point in enumerate(points):
            distance = point - samples
            kernel = distance.square().mul_(-0.5 / BANDWIDTH**2).exp_()
            gradient.addcmul_(distance.mul_(upstream[:, index : index + 1]), kernel, value=scale)
        return gradient, None


class _FusedKernelDensity(torch.autograd.Function):
    """The same by two kernels, each of one pass over the samples."""

    @staticmethod
    def forward(ctx: Any, samples: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(samples, points)
        return kernels.kernel_sums(samples, points, PRECISION).mul_(HEIGHT / samples.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        samples, points = ctx.saved_tensors
        upstream = upstream * (HEIGHT / samples.shape[1])
        return kernels.kernel_sums_gradient(samples, points, PRECISION, upstream), None


def kernel_density(samples: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Density of each image's samples at shared points: [B, S], [G] -> [B, G]. No gradient to the points."""
    fused = kernels.serve(samples, points)
    return (_FusedKernelDensity if fused else _KernelDensity).apply(samples, points)


def similarity_grid(similarity: torch.Tensor) -> torch.Tensor:
    """G points from the least to the greatest similarity of the batch, without gradient: [B, P, P] -> [G]."""
    low, high = similarity.detach().aminmax()
    steps = torch.linspace(0, 1, GRID_POINTS, device=similarity.device, dtype=similarity.dtype)
    return low + (high - low) * steps


def differential_entropy(density: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Mean over images of the trapezoid integral of -p ln p, p = density + 1e-4: [B, G], [G] -> scalar."""
    floored = density + DENSITY_FLOOR
    return torch.trapezoid(-floored * floored.log(), points, dim=-1).mean()


def similarity_entropy(outputs: torch.Tensor) -> torch.Tensor:
    """Entropy of one block's patch similarities; outputs: [B, P, d] of `mean_over_heads`. A float32 scalar (nats).

    Always in float32: bfloat16 rounds similarities by up to .004, nearly half a bandwidth.
    """
    with torch.autocast(outputs.device.type, enabled=False):
        similarity = patch_similarity(outputs)
        points = similarity_grid(similarity)
        return differential_entropy(kernel_density(similarity.flatten(1), points), points)

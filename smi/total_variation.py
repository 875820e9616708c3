"""Total variation of a batch of images, the image prior of DeepInversion and PSAQ-ViT.

Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from smi import kernels

_ALL, _HEAD, _TAIL = slice(None), slice(None, -1), slice(1, None)
# Pixel pairs whose differences are summed: (rows, columns) of one and of the other.
_PAIRS = (
    ((_ALL, _HEAD), (_ALL, _TAIL)),  # right
    ((_HEAD, _ALL), (_TAIL, _ALL)),  # down
    ((_HEAD, _HEAD), (_TAIL, _TAIL)),  # diagonal
    ((_TAIL, _HEAD), (_HEAD, _TAIL)),  # other diagonal
)


def at_least_float32(image: torch.Tensor) -> torch.Tensor:
    """Norms over a whole batch need float32; float64 stays, for checks of the gradient."""
    return image.to(torch.promote_types(image.dtype, torch.float32))


def _pair_views(image: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for (rows_a, columns_a), (rows_b, columns_b) in _PAIRS:
        yield image[..., rows_a, columns_a], image[..., rows_b, columns_b]


class _TotalVariationL2(torch.autograd.Function):
    """Norms and gradient in one pass, so that no difference image outlives the forward.

    d norm(a - b) / da = (a - b) / norm(a - b); where the norm is zero, its subgradient zero, as in torch.
    """

    @staticmethod
    def forward(ctx: Any, image: torch.Tensor) -> torch.Tensor:
        image = at_least_float32(image)
        gradient = torch.zeros_like(image) if ctx.needs_input_grad[0] else None
        scratch = torch.empty(image.numel(), dtype=image.dtype, device=image.device)
        norms = []
        for index, (one, other) in enumerate(_pair_views(image)):
            difference = scratch[: one.numel()].view(one.shape)
            torch.sub(one, other, out=difference)
            norm = torch.linalg.vector_norm(difference)
            norms.append(norm)
            if gradient is not None:
                inverse = torch.where(norm > 0, norm.reciprocal(), 0)
                (rows_a, columns_a), (rows_b, columns_b) = _PAIRS[index]
                gradient[..., rows_a, columns_a].addcmul_(difference, inverse)
                gradient[..., rows_b, columns_b].addcmul_(difference, inverse, value=-1)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return torch.stack(norms).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> torch.Tensor:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream


class _FusedTotalVariationL2(torch.autograd.Function):
    """The same by two kernels: one for the norms, one for the gradient, which is computed when it is asked for."""

    @staticmethod
    def forward(ctx: Any, image: torch.Tensor) -> torch.Tensor:
        norms = kernels.squared_differences(image).sqrt()
        ctx.save_for_backward(image, norms)
        return norms.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> torch.Tensor:
        image, norms = ctx.saved_tensors
        return kernels.total_variation_gradient(image, torch.where(norms > 0, upstream / norms, 0))


def tv_l2(image: torch.Tensor) -> torch.Tensor:
    """Sum over right, down and both diagonal differences of their Frobenius norm over the whole batch.

    image: [B, C, H, W]; the result is a scalar, float32 at least. It is a norm, neither mean nor square:
    against a batch mean it grows with sqrt(B). A constant image gives zero with a zero gradient. Differentiable
    once.
    """
    return (_FusedTotalVariationL2 if kernels.serve(image) else _TotalVariationL2).apply(image)


def tv_l1(image: torch.Tensor) -> torch.Tensor:
    """Sum over the same four directions of the mean absolute difference. image: [B, C, H, W]; a scalar."""
    image = at_least_float32(image)
    return torch.stack([(one - other).abs().mean() for one, other in _pair_views(image)]).sum()

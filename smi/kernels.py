"""Kernels for a GPU, in Triton, which torch brings along there: what takes torch dozens of passes over the same memory.

Total variation takes two passes over the images where torch's operations take forty; the density of patch similarities
two where they take a hundred for each block of the model. Both sum in an order of their own that is the same each time.
Elsewhere (a CPU, a torch without Triton) smi/total_variation.py and smi/patch_similarity.py compute the same with
torch's operations, and are what these kernels are tested against.

Shapes: B images, C channels, H x W pixels, S samples, G points of the grid.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # a torch for CPUs
    triton = None

BLOCK = 1024  # elements that one program of a kernel handles
DIRECTIONS = 4  # of total variation's differences: right, down and both diagonals


def serve(*tensors: Tensor) -> bool:
    """Whether the kernels compute on these: float32, contiguous, on a CUDA device (or under Triton's interpreter)."""
    return triton is not None and all(
        tensor.dtype == torch.float32
        and tensor.is_contiguous()
        and 0 < tensor.numel() < 2**31
        and (work_on(tensor.device) if tensor.is_cuda else os.environ.get("TRITON_INTERPRET") == "1")
        for tensor in tensors
    )


@cache
def work_on(device: torch.device) -> bool:
    """Whether the kernels can be built and run on a CUDA device: tried once, which builds them. Triton needs a C
    compiler, and a GPU that it knows."""
    if triton is None:
        return False
    try:
        with torch.cuda.device(device):
            # sides and counts that 16 divides, as pictures have: Triton builds others anew
            image = torch.ones(1, 1, 16, 16, device=device)
            total_variation_gradient(image, squared_differences(image))
            samples = image.view(1, -1)
            kernel_sums_gradient(samples, samples[0, :10], 1.0, kernel_sums(samples, samples[0, :10], 1.0))
    except Exception as cause:
        reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        said = f"smi's kernels do not work on {device}, and torch's operations are slower: {reason}"
        warnings.warn(said, stacklevel=2)
        return False
    return True


def squared_differences(image: Tensor) -> Tensor:
    """Sums of the squared differences in the four directions of smi.total_variation, [4], of [B, C, H, W]."""
    programs = triton.cdiv(image.numel(), BLOCK)
    parts = image.new_empty(DIRECTIONS, programs)
    with torch.cuda.device_of(image):  # a launch goes to the current device
        _squared_differences[(programs,)](
            image, parts, image.numel(), image.shape[-2], image.shape[-1], programs, BLOCK=BLOCK
        )
    return parts.sum(dim=1)


def total_variation_gradient(image: Tensor, factors: Tensor) -> Tensor:
    """Gradient [B, C, H, W] of the directions' sums of squared differences, each by half a factor of `factors` [4]."""
    gradient = torch.empty_like(image)
    programs = triton.cdiv(image.numel(), BLOCK)
    sides = image.shape[-2:]
    with torch.cuda.device_of(image):
        _total_variation_gradient[(programs,)](
            image, factors.contiguous(), gradient, image.numel(), *sides, BLOCK=BLOCK
        )
    return gradient


def kernel_sums(samples: Tensor, points: Tensor, precision: float) -> Tensor:
    """Sums over samples [B, S] of exp(-precision / 2 (point - sample)^2) at each of the points [G]: [B, G]."""
    batch, count = samples.shape
    programs = triton.cdiv(count, BLOCK)
    parts = samples.new_empty(batch, len(points), programs)
    with torch.cuda.device_of(samples):
        _kernel_sums[(batch, programs)](
            samples, points, parts, count, programs, 0.5 * precision, GRID=len(points), BLOCK=BLOCK
        )
    return parts.sum(dim=2)


def kernel_sums_gradient(samples: Tensor, points: Tensor, precision: float, upstream: Tensor) -> Tensor:
    """Gradient [B, S] of `kernel_sums` to the samples; upstream: [B, G]."""
    batch, count = samples.shape
    gradient = torch.empty_like(samples)
    with torch.cuda.device_of(samples):
        _kernel_sums_gradient[(batch, triton.cdiv(count, BLOCK))](
            *(samples, points, upstream.contiguous(), gradient, count, precision),
            GRID=len(points),
            BLOCK=BLOCK,
        )
    return gradient


def _jit(function: Any) -> Any:
    return cast(Any, triton).jit(function) if triton is not None else function


@_jit
def _squared_differences(image, parts, count, height, width, programs, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    place = program * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    column, row = place % width, (place // width) % height
    right, below = inside & (column < width - 1), inside & (row < height - 1)
    both = right & below
    here = tl.load(image + place, mask=inside, other=0.0)
    beside = tl.load(image + place + 1, mask=right, other=0.0)
    under = tl.load(image + place + width, mask=below, other=0.0)
    across = tl.load(image + place + width + 1, mask=both, other=0.0)
    one = tl.where(right, here - beside, 0.0)
    two = tl.where(below, here - under, 0.0)
    three = tl.where(both, here - across, 0.0)
    four = tl.where(both, under - beside, 0.0)
    tl.store(parts + program, tl.sum(one * one, axis=0))
    tl.store(parts + programs + program, tl.sum(two * two, axis=0))
    tl.store(parts + 2 * programs + program, tl.sum(three * three, axis=0))
    tl.store(parts + 3 * programs + program, tl.sum(four * four, axis=0))


@_jit
def _total_variation_gradient(image, factors, gradient, count, height, width, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    column, row = place % width, (place // width) % height
    right, left = inside & (column < width - 1), inside & (column > 0)
    below, above = inside & (row < height - 1), inside & (row > 0)
    here = tl.load(image + place, mask=inside, other=0.0)
    sideways = tl.where(right, here - tl.load(image + place + 1, mask=right, other=0.0), 0.0)
    sideways += tl.where(left, here - tl.load(image + place - 1, mask=left, other=0.0), 0.0)
    upright = tl.where(below, here - tl.load(image + place + width, mask=below, other=0.0), 0.0)
    upright += tl.where(above, here - tl.load(image + place - width, mask=above, other=0.0), 0.0)
    mask = below & right
    falling = tl.where(mask, here - tl.load(image + place + width + 1, mask=mask, other=0.0), 0.0)
    mask = above & left
    falling += tl.where(mask, here - tl.load(image + place - width - 1, mask=mask, other=0.0), 0.0)
    mask = above & right
    rising = tl.where(mask, here - tl.load(image + place - width + 1, mask=mask, other=0.0), 0.0)
    mask = below & left
    rising += tl.where(mask, here - tl.load(image + place + width - 1, mask=mask, other=0.0), 0.0)
    found = sideways * tl.load(factors) + upright * tl.load(factors + 1)
    found += falling * tl.load(factors + 2) + rising * tl.load(factors + 3)
    tl.store(gradient + place, found, mask=inside)


@_jit
def _kernel_sums(samples, points, parts, count, programs, half, GRID: tl.constexpr, BLOCK: tl.constexpr):
    image, program = tl.program_id(0), tl.program_id(1)
    place = program * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    sample = tl.load(samples + image * count + place, mask=inside, other=0.0)
    for index in tl.static_range(GRID):
        distance = tl.load(points + index) - sample
        kernel = tl.where(inside, tl.exp(-half * distance * distance), 0.0)
        tl.store(parts + (image * GRID + index) * programs + program, tl.sum(kernel, axis=0))


@_jit
def _kernel_sums_gradient(
    samples, points, upstream, gradient, count, precision, GRID: tl.constexpr, BLOCK: tl.constexpr
):
    image = tl.program_id(0)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    sample = tl.load(samples + image * count + place, mask=inside, other=0.0)
    found = tl.zeros((BLOCK,), dtype=tl.float32)
    for index in tl.static_range(GRID):
        distance = tl.load(points + index) - sample
        kernel = tl.exp(-0.5 * precision * distance * distance)
        found += tl.load(upstream + image * GRID + index) * precision * distance * kernel
    tl.store(gradient + image * count + place, found, mask=inside)

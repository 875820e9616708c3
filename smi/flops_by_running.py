"""Multiply-accumulates of models without a closed form, counted in one pass of shapes (torch's meta device).

Two counters: by layers, for the paper's convention, which knows no attention; and torch's own, by the products of
matrices and convolutions that are computed, in whatever module or function, for the exact count.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from smi.checks import is_whole
from smi.errors import UnsupportedModel

OPERATIONS_PER_NORM_ELEMENT = 4
_LINEAR_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
_NORM_LAYERS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
_POOLING_LAYERS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)


@dataclass(frozen=True)
class Macs:
    """MACs of one image's forward pass, by kind.

    linear: convolutions, linear layers and heads; embedding is the part of it that embeds patches.
    attention: the two matrix products of every attention, over all heads.
    norm_elements: numbers that LayerNorm, GroupNorm and BatchNorm normalise.
    pooled_elements: numbers that adaptive average pooling takes in, of CNNs.
    """

    linear: int
    embedding: int
    attention: int
    norm_elements: int
    pooled_elements: int = 0

    @property
    def paper(self) -> int:
        return self.linear + OPERATIONS_PER_NORM_ELEMENT * self.norm_elements + self.pooled_elements

    @property
    def exact(self) -> int:
        return self.linear + self.attention


def count_by_running(model: nn.Module, image_size: int | tuple[int, int] | None) -> Macs:
    """Convolution, linear, norm and pooling layers of any model, counted in one forward of shapes."""
    linear = norms = pooled = 0

    def add(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal linear, norms, pooled
        if isinstance(layer, nn.Linear):
            linear += output.numel() * layer.in_features
        elif isinstance(layer, nn.modules.conv._ConvNd):
            # each output (of a transposed convolution: each input) meets one kernel per channel of its group
            elements = inputs[0] if layer.transposed else output
            linear += elements.numel() * layer.weight[0].numel()
        elif isinstance(layer, _NORM_LAYERS):
            norms += output.numel()
        else:
            pooled += inputs[0].numel()

    with _shapes_only(model) as shapes, torch.no_grad():
        for layer in shapes.modules():
            if isinstance(layer, (*_LINEAR_LAYERS, *_NORM_LAYERS, *_POOLING_LAYERS)):
                layer.register_forward_hook(add)
        shapes(_image(model, image_size))
    return Macs(linear=linear, embedding=0, attention=0, norm_elements=norms, pooled_elements=pooled)


def products(
    model: nn.Module, image_size: int | tuple[int, int] | None, weight_gradients: bool = False
) -> tuple[int, int]:
    """MACs of one image's (forward, backward to the pixels) in products of matrices and convolutions.

    Fused attention is taken apart, so that its products are seen. UnsupportedModel where shapes alone do not pass.
    """
    with _shapes_only(model) as shapes, torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        shapes.requires_grad_(weight_gradients)
        image = _image(model, image_size).requires_grad_()
        try:
            with FlopCounterMode(display=False) as forward:
                answer = shapes(image)
            with FlopCounterMode(display=False) as backward:
                _total(answer).backward()
        except (RuntimeError, NotImplementedError, AttributeError, TypeError) as cause:
            reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
            raise UnsupportedModel(f"{type(model).__name__} cannot be counted exactly: {reason}") from cause
    return forward.get_total_flops() // 2, backward.get_total_flops() // 2


def _total(answer: Any) -> torch.Tensor:
    """One number of all that a model returns."""
    return answer.sum() if isinstance(answer, torch.Tensor) else sum(map(_total, answer))  # type: ignore[return-value]


def _image(model: nn.Module, image_size: int | tuple[int, int] | None) -> torch.Tensor:
    """An image of shapes; by default of the size in the timm data config, or of 224 pixels."""
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd)), 3)
    if image_size is None:
        config = cast(dict[str, Any], getattr(model, "pretrained_cfg", None) or {})
        image_size = tuple(config.get("input_size", (channels, 224, 224)))[1:]
    height, width = cast(tuple[int, int], (image_size, image_size) if is_whole(image_size) else image_size)
    return torch.empty(1, channels, height, width, device="meta", dtype=torch.float32)


@contextmanager
def _shapes_only(model: nn.Module) -> Iterator[nn.Module]:
    """A copy of the model on the meta device, in evaluation mode; no weight is copied."""
    tensors = [*model.parameters(), *model.buffers()]
    memo = {id(tensor): _on_meta(tensor) for tensor in tensors}
    yield copy.deepcopy(model, memo).eval()


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    meta = torch.empty_like(tensor, device="meta")
    return nn.Parameter(meta, requires_grad=False) if isinstance(tensor, nn.Parameter) else meta

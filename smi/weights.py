"""Copies of a model whose frozen weights are laid out for speed; the model itself is never changed.

Source of the layout: oneDNN's prepacked weights, which torch's own compiler uses for inference. What they gain is told
in docs/speed.md.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Narrower layers keep torch's own product: the images that small models made, and were published, stay to the bit.
LEAST_WIDTH = 192


def shared(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode that shares parameters and buffers, so that hooks and layers can be put into it."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()


def halved(model: nn.Module) -> nn.Module:
    """A frozen copy whose linear and convolution weights are bfloat16 already.

    Autocast makes the same cast in every forward pass of a frozen weight, which it does not cache.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.to(torch.bfloat16)
    return model


def prepacked(model: nn.Module) -> nn.Module:
    """A copy whose wide float32 linear layers multiply by weights that oneDNN has prepacked, there and back.

    The model itself where that is not known to gain (not on a CPU with AVX-512, no wide layer), where it has hooks or
    where it cannot be copied. Results differ by rounding. Prepacked weights take twice the memory of those weights.
    """
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    if hooked or not _packs() or not any(_is_wide(module) for module in model.modules()):
        return model
    try:
        model = shared(model)
    except (RuntimeError, TypeError):  # it holds a file, say, or an activation of an earlier pass
        return model
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear) and _is_wide(child):
                setattr(module, name, _PrepackedLinear(child))
    return model


def is_product(layer: nn.Module) -> bool:
    """Whether a linear layer is its input times its weight and no more, so that rows of the weight stand for it."""
    return type(layer).forward in (nn.Linear.forward, _PrepackedLinear.forward)


def _packs() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def _is_wide(module: nn.Module) -> bool:
    return (
        type(module) is nn.Linear  # a subclass may compute something else
        and min(module.in_features, module.out_features) >= LEAST_WIDTH
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
    )


class _PrepackedLinear(nn.Linear):
    """A linear layer with frozen weights [out, in], prepacked for the product with them and with their transpose."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        weight = layer.weight.detach()
        self.there = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.back = torch.ops.mkldnn._reorder_linear_weight(weight.t().contiguous())

    def forward(self, inputs: Tensor) -> Tensor:
        return _FrozenProduct.apply(inputs, self)


class _FrozenProduct(torch.autograd.Function):
    """inputs [..., in] -> [..., out]; the gradient goes to the inputs alone."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: _PrepackedLinear) -> Tensor:
        ctx.layer = layer
        return torch.ops.mkldnn._linear_pointwise(inputs, layer.there, layer.bias, "none", [], "")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return torch.ops.mkldnn._linear_pointwise(gradient, ctx.layer.back, None, "none", [], ""), None

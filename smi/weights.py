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

from smi.errors import UnsupportedModel
from smi.shortcuts import is_hooked, is_plain, refuse_copy, replaced_method

# Narrower layers keep torch's own product: the images that small models made, and were published, stay to the bit.
LEAST_WIDTH = 192


def copied(model: nn.Module, why: str) -> nn.Module:
    """A copy with weights of its own, those included that hooks compute in each forward pass (pruning, weight norm).

    why: what needs the copy, for the message. UnsupportedModel where it cannot be made, or may call the original.
    """
    refuse_copy(model, why)
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(model, computed)
    except (RuntimeError, TypeError) as cause:
        reason = str(cause).splitlines()[0]
        raise UnsupportedModel(f"{why} needs a copy of {type(model).__name__}: {reason}") from cause


def outside_inference_mode(model: nn.Module) -> nn.Module:
    """The model itself, or a copy where it was made in torch's inference mode, whose tensors no gradient passes."""
    if not isinstance(model, nn.Module):
        return model  # and say so where it is adapted
    made_there = any(tensor.is_inference() for tensor in [*model.parameters(), *model.buffers()])
    return copied(model, "a model made in inference mode") if made_there else model


def shared(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode that shares parameters and buffers, so that hooks and layers can be put into it."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()


def halved(model: nn.Module) -> nn.Module:
    """A frozen copy whose linear and convolution weights are bfloat16 already.

    Autocast makes the same cast in every forward pass of a frozen weight, which it does not cache.
    """
    model = copied(model, "precision='bf16'").eval().requires_grad_(False)
    for module in model.modules():
        if type(module) in (nn.Linear, nn.Conv2d) and is_plain(module, nn.Linear, nn.Conv2d):
            module.to(torch.bfloat16)
    return model


def prepacked(model: nn.Module) -> nn.Module:
    """A copy whose wide float32 linear layers multiply by weights that oneDNN has prepacked, there and back.

    The model itself where that is not known to gain (not on a CPU with AVX-512, no wide layer), where a part has hooks
    or replaced methods, or where it cannot be copied. Results differ by rounding. Prepacked weights take twice the
    memory of those weights.
    """
    touched = any(is_hooked(module) or replaced_method(module) for module in model.modules())
    if touched or not _packs() or not any(_is_wide(module) for module in model.modules()):
        return model
    try:
        model = shared(model)
    except (RuntimeError, TypeError):  # it holds a file, say, or an activation of an earlier pass
        return model
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear) and _is_wide(child):
                setattr(module, name, PrepackedLinear(child))
    return model


def _packs() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def _is_wide(module: nn.Module) -> bool:
    return (
        type(module) is nn.Linear  # a subclass, a parametrized one too, may compute something else
        and min(module.in_features, module.out_features) >= LEAST_WIDTH
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
    )


class PrepackedLinear(nn.Linear):
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
    def forward(ctx: Any, inputs: Tensor, layer: PrepackedLinear) -> Tensor:
        ctx.layer = layer
        return torch.ops.mkldnn._linear_pointwise(inputs, layer.there, layer.bias, "none", [], "")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return torch.ops.mkldnn._linear_pointwise(gradient, ctx.layer.back, None, "none", [], ""), None

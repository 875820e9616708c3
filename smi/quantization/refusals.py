"""What a model must be for its quantized copy to compute what it computes, decided in this one place.

`QuantizedViT` runs the layers of a timm ViT in its own order and multiplies by the weights it reads from them. So each
part must be timm's or torch's own, not replaced, hooked or computed from something else.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from smi.errors import UnsupportedModel
from smi.shortcuts import is_hooked, replaced_method
from smi.vit import adapt

_COMPUTED = {  # a name that the older utilities of torch.nn.utils leave in a layer -> how its weight is made plain
    "weight_mask": "torch.nn.utils.prune.remove(layer, 'weight')",
    "bias_mask": "torch.nn.utils.prune.remove(layer, 'bias')",
    "weight_g": "torch.nn.utils.remove_weight_norm(layer)",
    "weight_u": "torch.nn.utils.remove_spectral_norm(layer)",
}


def plain_copy(model: nn.Module) -> Any:
    """A copy in evaluation mode, without gradients, whose parametrized weights are parameters of that value.

    UnsupportedModel where hooks or methods of its own would be left behind.
    """
    if not isinstance(model, nn.Module):
        adapt(model)  # which says what a model is
    for name, module in model.named_modules():
        _refuse_computed(name or "the model", module)
    model = copy.deepcopy(model).eval()
    parts: list[Any] = list(model.modules())
    for module in parts:
        if is_parametrized(module):
            # not remove_parametrizations: it would take the weight from the class that the original shares
            values = {name: getattr(module, name).detach().clone() for name in module.parametrizations}
            del module.parametrizations
            module.__class__ = type(module).__bases__[0]
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value))
    return model.requires_grad_(False)


def refuse_unhandled(model: Any) -> None:
    """UnsupportedModel naming the first part of a plain copy that a quantized one would compute otherwise."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UnsupportedModel(f"{name} is {kind}; only float32 models are quantized: give model.float()")
    for index, block in enumerate(model.blocks):
        _refuse_block(f"blocks.{index}", block)
    _refuse_layer("patch_embed.proj", model.patch_embed.proj, nn.Conv2d)
    for name in ("head", "head_dist"):
        head = getattr(model, name, None)
        if head is not None and type(head) is not nn.Identity:  # a backbone (num_classes=0) has none
            _refuse_layer(name, head, nn.Linear)


def _refuse_computed(name: str, module: nn.Module) -> None:
    for attribute, remedy in _COMPUTED.items():
        if hasattr(module, attribute) and module._forward_pre_hooks:
            raise UnsupportedModel(
                f"{name}: its weight is computed in each forward pass; call {remedy} first"
            )
    if is_hooked(module):
        raise UnsupportedModel(f"{name} has hooks, which a quantized copy would not run: remove them first")
    if method := replaced_method(module):
        raise UnsupportedModel(f"{name} has a {method}() of its own, which a quantized copy would not run")


def _refuse_block(name: str, block: nn.Module) -> None:
    for part, kind in (("attn", Attention), ("mlp", Mlp)):
        module = getattr(block, part)
        if type(module).forward is not kind.forward:
            raise UnsupportedModel(
                f"{name}.{part} is a {type(module).__name__}; only timm's {kind.__name__} is handled"
            )
    for owner, part in (("attn", "norm"), ("attn", "gate"), ("mlp", "norm")):
        module = getattr(getattr(block, owner), part, None)  # older versions of timm do not have them
        if module is not None and not isinstance(module, nn.Identity):
            raise UnsupportedModel(f"{name}.{owner}.{part} has no quantizer placement")
    for owner, layer in (("attn", "qkv"), ("attn", "proj"), ("mlp", "fc1"), ("mlp", "fc2")):
        _refuse_layer(f"{name}.{owner}.{layer}", getattr(getattr(block, owner), layer), nn.Linear)


def _refuse_layer(name: str, layer: Any, kind: type[nn.Module]) -> None:
    """A layer is its input times its own weight parameter plus its own bias, and no more."""
    plain = kind.__name__
    if type(layer).forward is not kind.forward or hasattr(type(layer), "weight"):
        raise UnsupportedModel(
            f"{name} is a {type(layer).__name__} and computes more than a {plain} does: merge the adapter first, or "
            f"put a plain {plain} in its place"
        )
    if {"weight", "bias"} - set(layer._parameters):
        raise UnsupportedModel(
            f"{name}: its weight or bias is no parameter of its own; only a plain {plain} is handled"
        )
    if not torch.isfinite(layer.weight).all():
        raise UnsupportedModel(f"{name} has a weight that is not finite; it cannot be quantized")

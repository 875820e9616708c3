"""A timm ViT as JSON values, and an empty one of the same architecture made from them: no hub, no class from outside.

Shapes: C channels, H x W pixels, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from smi.class_and_mean import ClassAndMeanViT
from smi.quantization import parts

_KINDS: Mapping[str, Any] = {  # the more special ones first
    "VisionTransformerDistilled": VisionTransformerDistilled,
    "ClassAndMeanViT": ClassAndMeanViT,
    "VisionTransformer": VisionTransformer,
}


def describe(model: Any) -> dict[str, Any]:
    """The architecture of a plain timm ViT, or of the one inside a QuantizedViT, in JSON values.

    UnsupportedModel names a part that cannot be described.
    """
    embed = model.patch_embed
    layers = {
        name: {"shape": list(layer.weight.shape), "bias": layer.bias is not None}
        for name, layer in model.named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d))
    }
    return {
        "image_size": list(embed.img_size),
        "patch_size": list(embed.patch_size),
        "channels": embed.proj.in_channels,
        "width": embed.proj.out_channels,
        "depth": len(model.blocks),
        "classes": getattr(model.head, "out_features", 0),
        "pooling": model.global_pool,
        "pooling_takes_prefix": bool(getattr(model, "pool_include_prefix", False)),
        "kind": next(name for name, kind in _KINDS.items() if isinstance(model, kind)),
        "class_token": getattr(model, "cls_token", None) is not None,
        "register_tokens": 0 if getattr(model, "reg_token", None) is None else model.reg_token.shape[1],
        "positions": model.pos_embed is not None,
        "positions_of_prefix": not model.no_embed_class,
        "heads": [_heads(block.attn) for block in model.blocks],
        "scales": [float(block.attn.scale) for block in model.blocks],
        "layers": layers,
        "parts": {name: parts.describe(name, module) for name, module in parts.parts(model)},
    }


def build(of: Mapping[str, Any]) -> nn.Module:
    """A plain ViT of that architecture, all of its values zero, on the CPU."""
    of_kind = {} if of["kind"] == "ClassAndMeanViT" else {"global_pool": of["pooling"], "fc_norm": False}
    with torch.device("meta"):
        model: Any = _KINDS[of["kind"]](
            img_size=tuple(of["image_size"]),
            patch_size=tuple(of["patch_size"]),
            in_chans=of["channels"],
            embed_dim=of["width"],
            depth=of["depth"],
            num_heads=1,  # each block's own are set below, as are its layers
            num_classes=of["classes"],
            class_token=of["class_token"],
            reg_tokens=of["register_tokens"],
            pos_embed="learn" if of["positions"] else "none",
            no_embed_class=not of["positions_of_prefix"],
            **of_kind,
        )
        if of["pooling_takes_prefix"]:
            model.pool_include_prefix = True
        for name, layer in of["layers"].items():
            _put(model, name, _layer(layer))
        for name, part in of["parts"].items():
            _put(model, name, parts.build(part))
        for block, heads, scale in zip(model.blocks, of["heads"], of["scales"], strict=True):
            block.attn.num_heads, block.attn.scale = heads, scale
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.zero_()
    return model


def _heads(attention: Any) -> int:
    return attention.heads if hasattr(attention, "heads") else attention.num_heads


def _layer(of: Mapping[str, Any]) -> nn.Module:
    if len(of["shape"]) == 2:
        return nn.Linear(of["shape"][1], of["shape"][0], bias=of["bias"])
    out, channels, *patch = of["shape"]
    return nn.Conv2d(channels, out, patch, stride=patch, bias=of["bias"])


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)

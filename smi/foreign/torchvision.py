"""From torchvision's VisionTransformer to a blueprint and its weights. Shapes: D width, P patches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from smi.errors import UnsupportedModel
from smi.foreign.blueprint import Blueprint

RENAMES = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.(?:\w+\.)?(weight|bias)$", r"head.\1"),
    (r"\.ln_1\.", ".norm1."),
    (r"\.ln_2\.", ".norm2."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:linear_1|0)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:linear_2|3)\.", ".mlp.fc2."),
)


def handles(model: nn.Module) -> bool:
    """Whether it is torchvision's own class, to the letter."""
    kind = type(model)
    return (kind.__module__, kind.__name__) == ("torchvision.models.vision_transformer", "VisionTransformer")


def converted(model: Any) -> tuple[Blueprint, Mapping[str, Tensor]]:
    """(blueprint, weights by timm's names). torchvision normalises all its models by ImageNet's statistics.

    Raises UnsupportedModel for a stem of several convolutions and a head of several layers.
    """
    if not isinstance(model.conv_proj, nn.Conv2d):
        raise UnsupportedModel(
            "VisionTransformer of torchvision: its stem of several convolutions is not handled"
        )
    layers = list(model.heads) if isinstance(model.heads, nn.Sequential) else [model.heads]
    head = layers[0] if len(layers) == 1 else None
    if not isinstance(head, (nn.Linear, nn.Identity)):
        raise UnsupportedModel(
            "VisionTransformer of torchvision: heads must be one linear layer (or Identity)"
        )
    first = model.encoder.layers[0]
    size, patch = int(model.image_size), int(model.patch_size)
    blueprint = Blueprint(
        image_size=(size, size),
        patch_size=(patch, patch),
        channels=model.conv_proj.in_channels,
        width=model.hidden_dim,
        depth=len(model.encoder.layers),
        heads=first.self_attention.num_heads,
        hidden=first.mlp[0].out_features,
        classes=head.out_features if isinstance(head, nn.Linear) else 0,
        head_bias=not isinstance(head, nn.Linear) or head.bias is not None,
        eps=first.ln_1.eps,
        dropout=model.dropout,
        inner_dropout=model.dropout,
        attention_dropout=model.attention_dropout,
        interpolation="bilinear",
        crop_pct=0.875 if size == 224 else 1.0,
    )
    tensors = {}
    for name, tensor in model.state_dict().items():
        for old, new in RENAMES:
            name = re.sub(old, new, name)
        tensors[name] = tensor
    return blueprint, tensors

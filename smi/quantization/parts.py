"""The parts of a ViT that stay in float: norms, layer scales, activation functions; as JSON values and back.

A file of a quantized model names each of them, and the ONNX graph writes each kind by its operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from timm.layers import RmsNorm
from timm.layers.activations import QuickGELU
from timm.models.vision_transformer import LayerScale
from torch import nn

from smi.errors import UnsupportedModel

Part = Mapping[str, Any]  # {"kind": ..., and what that kind is made with}

_ACTIVATIONS: Mapping[str, tuple[frozenset[str], Callable[[], nn.Module]]] = {
    # kind -> (names of torch's and timm's classes that compute it, how it is made)
    "GELUTanh": (frozenset({"GELUTanh"}), lambda: nn.GELU(approximate="tanh")),
    "GELU": (frozenset({"GELU"}), nn.GELU),
    "QuickGELU": (frozenset({"QuickGELU"}), QuickGELU),
    "SiLU": (frozenset({"SiLU", "Swish"}), nn.SiLU),
    "ReLU": (frozenset({"ReLU"}), nn.ReLU),
    "Tanh": (frozenset({"Tanh"}), nn.Tanh),
    "Sigmoid": (frozenset({"Sigmoid"}), nn.Sigmoid),
}
_FLOAT32_EPSILON = torch.finfo(torch.float32).eps
_LAYER_NORMS = {"LayerNorm", "LayerNormFp32"}
_RMS_NORMS = {"RmsNorm", "RMSNorm"}
KINDS = ("Identity", "LayerNorm", "RmsNorm", "LayerScale", *_ACTIVATIONS)


def parts(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) of each of them in a timm ViT or in the one inside a QuantizedViT."""
    yield "patch_embed.norm", model.patch_embed.norm
    for name in ("norm_pre", "norm", "fc_norm"):
        yield name, getattr(model, name)
    for index, block in enumerate(model.blocks):
        for name in ("norm1", "attn.q_norm", "attn.k_norm", "ls1", "norm2", "mlp.act", "ls2"):
            yield f"blocks.{index}.{name}", block.get_submodule(name)


def describe(name: str, module: Any) -> dict[str, Any]:
    """The part in JSON values, from which `build` makes its like; UnsupportedModel names one that is not known."""
    kind = type(module).__name__
    origin = type(module).__module__.partition(".")[0]
    if origin not in ("torch", "timm"):
        origin, kind = "other", f"{type(module).__module__}.{kind}"
    if kind == "Identity":
        return {"kind": kind}
    if kind in _LAYER_NORMS | _RMS_NORMS:
        return {
            "kind": "LayerNorm" if kind in _LAYER_NORMS else "RmsNorm",
            "width": module.normalized_shape[-1],
            "eps": _FLOAT32_EPSILON if module.eps is None else module.eps,  # as torch reads None
            "weight": module.weight is not None,
            "bias": getattr(module, "bias", None) is not None,
        }
    if kind == "LayerScale":
        return {"kind": kind, "width": len(module.gamma)}
    if kind == "GELU" and getattr(module, "approximate", "none") == "tanh":
        kind = "GELUTanh"
    for known, (names, _) in _ACTIVATIONS.items():
        if kind in names:
            return {"kind": known}
    raise UnsupportedModel(f"{name} is a {kind}, which no file can describe; allowed: {', '.join(KINDS)}")


def build(part: Part) -> nn.Module:
    """A part of that kind; its values are not set."""
    kind = part["kind"]
    if kind in _ACTIVATIONS:
        return _ACTIVATIONS[kind][1]()
    if kind == "LayerNorm":
        affine = part["weight"] or part["bias"]
        norm: Any = nn.LayerNorm(part["width"], part["eps"], affine, bias=part["bias"])
        if affine and not part["weight"]:
            norm.weight = None
        return norm
    if kind == "RmsNorm":
        return RmsNorm(part["width"], eps=part["eps"], affine=part["weight"])
    if kind == "LayerScale":
        return LayerScale(part["width"])
    return nn.Identity()

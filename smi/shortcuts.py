"""What a part of a model must be for a way around it to give what it gives: decided here, and nowhere else.

The adapter of ViTs (smi/vit.py) does not call every module: it multiplies kept patches by the weight of the patch
convolution, computes the last block for the tokens that the head reads, and steps through the blocks itself. Copies
for speed (smi/weights.py) put other layers in the place of linear ones. All this is true of parts that are what their
name says: of exactly that class, no method replaced on the instance, no hook. A weight computed by a parametrization is
fine, since reading it computes it. What is otherwise takes the model's own way, or is refused by its name.

torch's global hooks, by which profilers and counters watch all modules, are not looked at.
"""

from __future__ import annotations

from typing import Any

import torch
from timm import layers
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Attention, Block, LayerScale
from torch import nn
from torch.nn.modules import activation
from torch.nn.utils import prune
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from smi.errors import UnsupportedModel

METHODS = ("forward", "forward_features", "forward_head", "_pos_embed", "pool")

# modules of which each token's output depends on that token alone
_ACTIVATIONS = (
    "ELU",
    "GELU",
    "Hardswish",
    "LeakyReLU",
    "Mish",
    "ReLU",
    "ReLU6",
    "SELU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Tanh",
)
_OF_TIMM = (
    "DropPath",
    "GELU",
    "GELUTanh",
    "GluMlp",
    "LayerNorm",
    "LayerNormFp32",
    "Mlp",
    "QuickGELU",
    "RmsNorm",
    "SwiGLU",
)
_TOKENWISE: frozenset[type] = frozenset(
    [nn.Identity, nn.Linear, nn.LayerNorm, nn.Dropout, LayerScale]
    + [getattr(activation, name) for name in _ACTIVATIONS]
    + [getattr(layers, name) for name in _OF_TIMM if hasattr(layers, name)]  # versions of timm differ
)  # fmt: skip


def is_hooked(module: nn.Module) -> bool:
    """Whether someone has put a hook into its forward or backward pass."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def replaced_method(module: nn.Module) -> str | None:
    """The first method that this one instance has in the place of its class's."""
    return next((name for name in METHODS if name in vars(module)), None)


def is_plain(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether it is of exactly one of these classes, and does what that class does. Parametrizations are fine."""
    exact = type_before_parametrizations(module) in kinds
    return exact and not is_hooked(module) and replaced_method(module) is None


def is_tokenwise(module: nn.Module, *further: type[nn.Module]) -> bool:
    """Whether it and all modules in it, those of `further` classes apart, are known to treat each token alone."""
    return all(is_plain(part, *_TOKENWISE, *further) for part in module.modules())


def computes_its_weight(module: nn.Module) -> bool:
    """Whether it has hooks, and all of them set its own weight and bias: torch's pruning, weight and spectral norm."""
    others = module._forward_hooks or module._backward_hooks or module._backward_pre_hooks
    before = module._forward_pre_hooks.values()
    known = (prune.BasePruningMethod, WeightNorm, SpectralNorm)
    return bool(before) and not others and all(isinstance(hook, known) for hook in before)


def needs_all_patches(model: Any) -> str | None:
    """What keeps a timm ViT from being known on kept patches alone, in words; None where nothing does.

    model: one that `refuse_unhandled` takes.
    """
    embed = model.patch_embed
    parts = {
        type(model).__name__: model,
        "patch_embed": embed,
        "patch_embed.proj": embed.proj,
        "patch_embed.norm": embed.norm,
        "pos_drop": model.pos_drop,
        "blocks": model.blocks,
    }
    for name, part in parts.items():
        if method := replaced_method(part):
            return f"{name}.{method}() was replaced"
        if is_hooked(part) and not (part is embed.proj and computes_its_weight(part)):
            return f"{name} has hooks"
    if not is_tokenwise(embed.norm):
        return f"patch_embed.norm is a {type(embed.norm).__name__}"
    if type(model.blocks) is not nn.Sequential:
        return f"blocks are a {type(model.blocks).__name__}"
    return None


def refuse_other_dtypes(model: nn.Module, which: str = "model") -> None:
    """UnsupportedModel where a weight or buffer is no float32."""
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            name = str(tensor.dtype).removeprefix("torch.")
            raise UnsupportedModel(
                f"the {which}'s weights are {name}; allowed: float32 (precision='bf16' is autocast: give "
                f"{which}.float())"
            )


def refuse_copy(model: nn.Module, why: str) -> None:
    """UnsupportedModel where a copy of the model would go on calling the original, which a replaced method may hold."""
    for name, module in model.named_modules():
        if method := replaced_method(module):
            raise UnsupportedModel(
                f"{name or type(model).__name__}.{method}() was replaced on the instance, and {why} works on a copy, "
                "which may go on calling the original: put the method into a class of its own"
            )


def refuse_unhandled(model: Any, known: tuple[type[nn.Module], ...], headless: bool = False) -> None:
    """Raise UnsupportedModel naming the first part of a model that the adapter of ViTs does not know.

    known: classes whose forward methods it knows, from the most to the least special. headless: a backbone without a
    classifier will do.
    """
    kind = type(model).__name__
    if not isinstance(model, known):
        raise UnsupportedModel(
            f"{kind} is not a timm VisionTransformer (windows and relative positions are not handled)"
        )
    base = next(one for one in known if isinstance(model, one))
    for name in METHODS:
        if getattr(type(model), name, None) is not getattr(base, name, None):
            raise UnsupportedModel(f"{kind} has its own {name}(), which the adapter does not handle")
    _refuse_stem(model, kind)
    _refuse_head(model, kind, headless)
    _refuse_blocks(model, kind)


def _refuse_stem(model: Any, kind: str) -> None:
    embed = model.patch_embed
    if type_before_parametrizations(embed) is not PatchEmbed:
        raise UnsupportedModel(
            f"{kind}: patch embedding {type(embed).__name__} is not handled, only PatchEmbed"
        )
    proj = embed.proj
    if type_before_parametrizations(proj) is not nn.Conv2d:
        raise UnsupportedModel(
            f"{kind}: patch_embed.proj is a {type(proj).__name__}, which may compute otherwise; only Conv2d is handled "
            "(merge an adapter first)"
        )
    cut = {"kernel_size": tuple(embed.patch_size), "stride": tuple(embed.patch_size), "padding": (0, 0)}
    for name, wanted in {**cut, "dilation": (1, 1), "groups": 1}.items():
        if getattr(proj, name) != wanted:
            raise UnsupportedModel(
                f"{kind}: patch_embed.proj has {name} {getattr(proj, name)}; only {wanted} is handled: patches side by "
                "side"
            )
    if model.pos_embed is None and model.num_prefix_tokens:
        probe = proj.weight.new_zeros(1, proj.in_channels, *embed.img_size)
        with torch.no_grad():
            tokens = model._pos_embed(embed(probe)).shape[1]
        if tokens != embed.num_patches + model.num_prefix_tokens:
            raise UnsupportedModel(
                f"{kind} has no position embedding, and this version of timm then drops its class token"
            )


def _refuse_head(model: Any, kind: str, headless: bool) -> None:
    if getattr(model, "attn_pool", None) is not None:
        raise UnsupportedModel(
            f"{kind}: pooling by attention (global_pool={model.global_pool!r}) is not handled"
        )
    if not model.global_pool:
        raise UnsupportedModel(
            f"{kind} does not pool its tokens (global_pool=''), so each has logits of its own; allowed: 'token', 'avg'"
        )
    backbone = headless and type(model.head) is nn.Identity
    if not isinstance(model.head, nn.Linear) and not backbone:
        raise UnsupportedModel(f"{kind} has no linear classifier head (num_classes={model.num_classes})")
    other = getattr(model, "head_dist", None)
    first, second = (getattr(head, "out_features", "none") for head in (model.head, other))
    if other is not None and first != second:
        raise UnsupportedModel(f"{kind}: head has {first} classes, head_dist {second}; they must be equal")


def _refuse_blocks(model: Any, kind: str) -> None:
    for index, block in enumerate(model.blocks):
        name = f"{kind}: blocks.{index}"
        if type_before_parametrizations(block) is not Block:
            raise UnsupportedModel(f"{name} is a {type(block).__name__}; only Block is handled")
        if type_before_parametrizations(block.attn) is not Attention:
            raise UnsupportedModel(
                f"{name}.attn is a {type(block.attn).__name__}; only timm's own Attention is handled"
            )
        if replaced_method(block.attn) is not None:
            raise UnsupportedModel(f"{name}.attn.forward() was replaced: what it attends to is not known")
    linear = [layer for block in model.blocks for layer in block.modules() if isinstance(layer, nn.Linear)]
    if len({id(layer) for layer in linear}) < len(linear):
        raise UnsupportedModel(f"{kind}: blocks share their layers; only blocks of their own are handled")

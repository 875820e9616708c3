"""Adapter: a timm VisionTransformer on kept patches only, through timm's own modules.

Shapes: B images, C channels, H x W pixels, P patches, K kept, S prefix tokens (CLS, registers, distillation),
N = S + K tokens, D width, h heads. Images are normalised as the model expects them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config
from timm.layers import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from smi.class_and_mean import ClassAndMeanViT
from smi.errors import UnsupportedModel
from smi.geometry import PatchGrid, patchify, take_patches
from smi.patch_similarity import mean_over_heads
from smi.weights import is_product


def adapt(model: nn.Module, headless: bool = False) -> TokenModel:
    """Wrap a timm VisionTransformer; raises UnsupportedModel that names the part it does not handle.

    headless: a backbone without a classifier (num_classes=0) will do.
    """
    return TokenModel(model, headless)


class TokenModel:
    """Forward of a timm VisionTransformer that is fed the kept patches alone. Holds the model, changes nothing."""

    def __init__(self, model: nn.Module, headless: bool = False) -> None:
        _refuse_unhandled(model, headless)
        self.model = cast(Any, model)  # torch types every part of a model as "Tensor | Module"
        embed = self.model.patch_embed
        self.grid = PatchGrid.of(*embed.img_size, *embed.patch_size)
        self.channels: int = embed.proj.in_channels
        self.prefix_tokens: int = self.model.num_prefix_tokens
        self.heads: int = self.model.blocks[-1].attn.num_heads
        self._qkv_is_product = is_product(self.model.blocks[-1].attn.qkv)
        # num_classes stays behind when a head is replaced
        self.classes: int = getattr(self.model.head, "out_features", 0)

    @property
    def num_patches(self) -> int:
        return self.grid.patches

    @property
    def patch_size(self) -> tuple[int, int]:
        return self.grid.patch_height, self.grid.patch_width

    def embed_patches(self, patches: Tensor) -> Tensor:
        """Patch vectors [B, K, C*ph*pw] -> embeddings [B, K, D]; a linear layer is the patch convolution."""
        embed = self.model.patch_embed
        return embed.norm(F.linear(patches, embed.proj.weight.flatten(1), embed.proj.bias))

    def prefix(self) -> Tensor | None:
        """Learned tokens before the patches, [1, S, D], without positions."""
        names = ("cls_token", "dist_token", "reg_token")
        tokens = [t for name in names if (t := getattr(self.model, name, None)) is not None]
        return torch.cat(tokens, dim=1) if tokens else None

    def positions(self, kept: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Position embeddings of (prefix [1, S, D], patches [B, K, D] or [1, P, D]); None where there are none."""
        table = self.model.pos_embed
        if table is None:
            return None, None
        of_prefix = None
        if not self.model.no_embed_class and self.prefix_tokens:
            of_prefix, table = table[:, : self.prefix_tokens], table[:, self.prefix_tokens :]
        return of_prefix, table if kept is None else table[0, kept]

    def tokens(self, image: Tensor, kept: Tensor | None = None) -> Tensor:
        """image [B, C, H, W], kept [B, K] or None for all -> tokens [B, N, D] as the first block takes them.

        In place of the image, the kept patches' pixels [B, K, C*ph*pw] will do.
        """
        if image.ndim == 4:
            image = patchify(image, self.grid) if kept is None else take_patches(image, kept, self.grid)
        x = self.embed_patches(image)
        prefix = self.prefix()
        of_prefix, of_patches = self.positions(kept)
        if of_patches is not None:
            x = x + of_patches
        if prefix is not None:
            prefix = prefix if of_prefix is None else prefix + of_prefix
            x = torch.cat([prefix.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1)
        return self.model.norm_pre(self.model.patch_drop(self.model.pos_drop(x)))

    def forward(self, image: Tensor, kept: Tensor | None = None) -> Tensor:
        """Logits [B, classes] of image [B, C, H, W] through kept patches int64 [B, K] (None: all of them).

        In place of the image, the kept patches' pixels [B, K, C*ph*pw] will do.
        """
        x = self.tokens(image, kept)
        for block in self.model.blocks[:-1]:
            x = block(x)
        return self.model.forward_head(self.model.norm(self._last_block(x)))

    def _last_block(self, x: Tensor) -> Tensor:
        """Tokens [B, N, D] -> those that the head reads: [B, S, D] where it reads prefix tokens only, else all.

        Patch tokens then serve as keys and values alone, which saves 10 of the block's 12 D^2 multiplications per
        token. A block runs whole that has hooks, whose qkv is more than a product with its weight,
        or that is stochastic (dropout, stochastic depth of a student in training).
        """
        block, prefix = self.model.blocks[-1], self.prefix_tokens
        attention = block.attn
        whole = not self._qkv_is_product or any(_has_hooks(m) or _is_stochastic(m) for m in block.modules())
        if self.model.global_pool != "token" or getattr(attention, "gate", None) is not None or whole:
            return block(x)
        normed = block.norm1(x)
        weight, bias = attention.qkv.weight, attention.qkv.bias
        width = weight.shape[0] // 3
        query = F.linear(normed[:, :prefix], weight[:width], None if bias is None else bias[:width])
        key_value = F.linear(normed, weight[width:], None if bias is None else bias[width:])
        query = query.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)  # [B, h, S, D/h]
        key, value = (
            t.transpose(1, 2) for t in key_value.unflatten(2, (2, attention.num_heads, -1)).unbind(2)
        )
        query, key = attention.q_norm(query), attention.k_norm(key)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        mixed = getattr(attention, "norm", nn.Identity())(mixed)
        x = x[:, :prefix] + block.ls1(attention.proj(mixed))
        return x + block.ls2(block.mlp(block.norm2(x)))

    def observe(self, view: Tensor, kept: Tensor | None, needs: frozenset[str]) -> dict[str, Any]:
        """One forward pass with what an objective needs beside the logits: fields of `smi.objectives.Step`.

        view: as in `forward`, an image or the kept patches' pixels.
        """
        with self.hooked(needs) as captured:
            logits = self.forward(view, kept)
        return self.fields(logits, captured, needs)

    def hooked(self, needs: frozenset[str]) -> AbstractContextManager[list[Any]]:
        """While open, hooks append to the list what `fields` makes those fields from."""
        return self.attention_outputs() if "attention_outputs" in needs else nullcontext([])

    def fields(self, logits: Tensor, captured: list[Any], needs: frozenset[str]) -> dict[str, Any]:
        """The fields of `smi.objectives.Step` from the logits of a pass and what hooks captured during it."""
        if "attention_outputs" not in needs:
            return {"logits": logits}
        outputs = [mean_over_heads(output, self.heads, self.prefix_tokens) for output in captured]
        return {"logits": logits, "attention_outputs": outputs}

    @torch.no_grad()
    def cls_attention(self, image: Tensor, kept: Tensor | None = None) -> Tensor:
        """Attention [B, K] of the last block from CLS to each patch, mean over heads, softmax over all N tokens.

        Only the CLS row is computed. Raises UnsupportedModel where the model has no class token.
        """
        self.need_class_token()
        x = self.tokens(image, kept)
        for block in self.model.blocks[:-1]:
            x = block(x)
        last = self.model.blocks[-1]
        x, attention = last.norm1(x), last.attn
        width = attention.qkv.out_features // 3
        if self._qkv_is_product and not _has_hooks(attention.qkv):
            weight, bias = attention.qkv.weight, attention.qkv.bias
            query = F.linear(x[:, :1], weight[:width], None if bias is None else bias[:width])
            key = F.linear(x, weight[width : 2 * width], None if bias is None else bias[width : 2 * width])
        else:
            query, key, _ = attention.qkv(x).split(width, dim=2)
            query = query[:, :1]
        query, key = (t.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for t in (query, key))
        query, key = attention.q_norm(query), attention.k_norm(key)
        scores = (query * attention.scale) @ key.transpose(-2, -1)  # [B, h, 1, N]
        return scores.softmax(dim=-1).mean(dim=1)[:, 0, self.prefix_tokens :]

    def need_class_token(self) -> None:
        """Raise UnsupportedModel where the model has no class token, whose attention could rank patches."""
        if getattr(self.model, "cls_token", None) is None:
            raise UnsupportedModel(
                "attention from CLS needs a class token, and this model has none: use score='random'"
            )

    @contextmanager
    def attention_outputs(self) -> Iterator[list[Tensor]]:
        """While open, forward passes append softmax(qk)v of every block, [B, N, h * head_dim], to the list."""
        outputs: list[Tensor] = []
        hooks = [
            block.attn.proj.register_forward_pre_hook(lambda _, inputs: outputs.append(inputs[0]))
            for block in self.model.blocks
        ]
        try:
            yield outputs
        finally:
            for hook in hooks:
                hook.remove()


def _has_hooks(module: nn.Module) -> bool:
    """Whether someone has put a hook into its forward pass."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_stochastic(module: nn.Module) -> bool:
    """Whether a module, as it is set now, draws random numbers: dropout or stochastic depth, in training."""
    chance = (
        getattr(module, "p", 0.0) if isinstance(module, nn.Dropout) else getattr(module, "drop_prob", 0.0)
    )
    return module.training and bool(chance)


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode and no weight gradients while open; the model's own modes and flags come back after it."""
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.eval()
        for parameter in flags:
            parameter.requires_grad_(False)
        yield model
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


def normalisation(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the model's timm data config, each [1, C, 1, 1], on the model's device."""
    config = resolve_model_data_config(model)
    first = next(model.parameters())
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), len(config["mean"]))
    shaped = []
    for name in ("mean", "std"):
        values = torch.tensor(config[name], dtype=torch.float32, device=first.device)
        if values.numel() not in (1, channels):
            raise UnsupportedModel(
                f"the model takes {channels} channels, its data config has {values.numel()} values for {name}: "
                f"set model.pretrained_cfg['{name}']"
            )
        if name == "std" and not (values > 0).all():
            raise UnsupportedModel(
                f"the model's data config has std {list(config[name])}; allowed: numbers above 0"
            )
        shaped.append(values.expand(channels).reshape(1, channels, 1, 1))
    return shaped[0], shaped[1]


def _refuse_unhandled(model: Any, headless: bool) -> None:
    """Raise UnsupportedModel naming the first part whose meaning on kept patches is not known."""
    own = ("forward", "forward_features", "forward_head", "_pos_embed")
    kind = type(model).__name__
    if not isinstance(model, VisionTransformer):
        raise UnsupportedModel(
            f"{kind} is not a timm VisionTransformer (windows and relative positions are not handled)"
        )
    kinds = (VisionTransformerDistilled, ClassAndMeanViT, VisionTransformer)
    known = next(known for known in kinds if isinstance(model, known))
    for name in own:
        if getattr(type(model), name) is not getattr(known, name):
            raise UnsupportedModel(f"{kind} has its own {name}(), which the adapter does not handle")
    if type(model.patch_embed) is not PatchEmbed:
        raise UnsupportedModel(
            f"{kind}: patch embedding {type(model.patch_embed).__name__} is not handled, only PatchEmbed"
        )
    if type(model.patch_embed.proj).forward is not nn.Conv2d.forward:
        raise UnsupportedModel(
            f"{kind}: patch_embed.proj is a {type(model.patch_embed.proj).__name__} with its own forward(); only "
            "Conv2d is handled"
        )
    if getattr(model, "attn_pool", None) is not None:
        raise UnsupportedModel(
            f"{kind}: pooling by attention (global_pool={model.global_pool!r}) is not handled"
        )
    if model.pos_embed is None and model.num_prefix_tokens:
        weight, size = model.patch_embed.proj.weight, model.patch_embed.img_size
        probe = torch.zeros(1, weight.shape[1], *size, device=weight.device, dtype=weight.dtype)
        with torch.no_grad():
            tokens = model._pos_embed(model.patch_embed(probe)).shape[1]
        if tokens != model.patch_embed.num_patches + model.num_prefix_tokens:
            raise UnsupportedModel(
                f"{kind} has no position embedding, and this version of timm then drops its class token"
            )
    if not isinstance(model.head, nn.Linear) and not (headless and type(model.head) is nn.Identity):
        raise UnsupportedModel(f"{kind} has no linear classifier head (num_classes={model.num_classes})")
    for index, block in enumerate(model.blocks):
        if type(block) is not Block:
            raise UnsupportedModel(
                f"{kind}: blocks.{index} is a {type(block).__name__}; only Block is handled"
            )
        if type(block.attn).__name__ != "Attention":
            raise UnsupportedModel(
                f"{kind}: blocks.{index}.attn is a {type(block.attn).__name__}; only Attention is handled"
            )
    layers = [layer for block in model.blocks for layer in block.modules() if isinstance(layer, nn.Linear)]
    if len({id(layer) for layer in layers}) < len(layers):
        raise UnsupportedModel(f"{kind}: blocks share their layers; only blocks of their own are handled")

"""Adapter: a timm VisionTransformer on kept patches only, through timm's own modules.

Shapes: B images, C channels, H x W pixels, P patches, K kept, S prefix tokens (CLS, registers, distillation),
N = S + K tokens, D width, h heads. Images are normalised as the model expects them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn

from smi.class_and_mean import ClassAndMeanViT
from smi.errors import UnsupportedModel
from smi.geometry import PatchGrid, patchify, take_patches, unpatchify
from smi.patch_similarity import mean_over_heads
from smi.shortcuts import is_hooked, is_plain, is_tokenwise, needs_all_patches, refuse_unhandled
from smi.watching import watched
from smi.weights import PrepackedLinear

# whose forward methods the adapter knows, the most special first
KINDS = (VisionTransformerDistilled, ClassAndMeanViT, VisionTransformer)


_FREEZING = threading.Lock()
_FROZEN: dict[
    int, tuple[bool, int]
] = {}  # id of a module or parameter -> how it was, and how many hold it frozen


def adapt(model: nn.Module, headless: bool = False) -> TokenModel:
    """Wrap a timm VisionTransformer; raises UnsupportedModel that names the part it does not handle.

    headless: a backbone without a classifier (num_classes=0) will do.
    """
    return TokenModel(model, headless)


class TokenModel:
    """Forward of a timm VisionTransformer that is fed the kept patches alone. Holds the model, changes nothing.

    What its shortcuts need of the model is told in smi/shortcuts.py, and looked at once, here.
    """

    def __init__(self, model: nn.Module, headless: bool = False) -> None:
        refuse_unhandled(model, KINDS, headless)
        self.model = cast(Any, model)  # torch types every part of a model as "Tensor | Module"
        embed = self.model.patch_embed
        self.grid = PatchGrid.of(*embed.img_size, *embed.patch_size)
        self.channels: int = embed.proj.in_channels
        self.prefix_tokens: int = self.model.num_prefix_tokens
        last = self.model.blocks[-1]
        self._whole = needs_all_patches(model)
        self._embeds_by_product = is_plain(embed.proj, nn.Conv2d)
        self._qkv_is_product = is_plain(last.attn.qkv, nn.Linear, PrepackedLinear)
        self._last_is_tokenwise = is_tokenwise(self.model.norm) and is_tokenwise(
            last, Block, Attention, PrepackedLinear
        )
        # num_classes stays behind when a head is replaced
        self.classes: int = getattr(self.model.head, "out_features", 0)

    @property
    def num_patches(self) -> int:
        return self.grid.patches

    @property
    def patch_size(self) -> tuple[int, int]:
        return self.grid.patch_height, self.grid.patch_width

    def embed_patches(self, patches: Tensor) -> Tensor:
        """Patch vectors [B, K, C*ph*pw] -> embeddings [B, K, D]; a linear layer is the patch convolution.

        A convolution whose weight is computed in its forward pass (pruning, weight norm) gets each patch as an image.
        """
        embed = self.model.patch_embed
        if self._embeds_by_product:
            return embed.norm(F.linear(patches, embed.proj.weight.flatten(1), embed.proj.bias))
        alone = patches.reshape(-1, self.channels, *self.patch_size)
        return embed.norm(embed.proj(alone).view(*patches.shape[:2], -1))

    def prefix(self) -> Tensor | None:
        """Learned tokens before the patches, [1, S, D], without positions."""
        two = isinstance(self.model, VisionTransformerDistilled)
        names = ("cls_token", "dist_token") if two else ("cls_token", "reg_token")
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

        In place of the image, the kept patches' pixels [B, K, C*ph*pw] will do. UnsupportedModel as of
        `need_kept_patches`; fed all patches, such a model answers in its own way.
        """
        if self._whole:
            if kept is not None:
                self.need_kept_patches()
            logits: Tensor = self.model(image if image.ndim == 4 else unpatchify(image, self.grid))
            return logits
        x = self.tokens(image, kept)
        for block in self.model.blocks[:-1]:
            x = block(x)
        return self.model.forward_head(self.model.norm(self._last_block(x)))

    __call__ = forward

    def _last_block(self, x: Tensor) -> Tensor:
        """Tokens [B, N, D] -> those that the head reads: [B, S, D] where it reads prefix tokens only, else all.

        Patch tokens then serve as keys and values alone, which saves 10 of the block's 12 D^2 multiplications per
        token. A block runs whole where a part of it is not known to treat each token alone, has hooks,
        or is stochastic (dropout, stochastic depth of a student in training).
        """
        block, prefix = self.model.blocks[-1], self.prefix_tokens
        attention = block.attn
        whole = not self._last_is_tokenwise or any(is_hooked(m) or _is_stochastic(m) for m in block.modules())
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
        scale = None if attention.fused_attn else attention.scale  # as timm does
        mixed = F.scaled_dot_product_attention(query, key, value, scale=scale).transpose(1, 2).flatten(2)
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
        blocks = zip(captured, self.model.blocks, strict=True)
        outputs = [mean_over_heads(one, block.attn.num_heads, self.prefix_tokens) for one, block in blocks]
        return {"logits": logits, "attention_outputs": outputs}

    @torch.no_grad()
    def cls_attention(self, image: Tensor, kept: Tensor | None = None) -> Tensor:
        """Attention [B, K] of the last block from CLS to each patch, mean over heads, softmax over all N tokens.

        Only the CLS row is computed, where the block is known. Raises UnsupportedModel where the model has no class
        token, and as of `need_kept_patches`.
        """
        self.need_class_token()
        self.need_kept_patches()
        x = self.tokens(image, kept)
        for block in self.model.blocks[:-1]:
            x = block(x)
        last = self.model.blocks[-1]
        attention = last.attn
        width = attention.qkv.out_features // 3
        if self._qkv_is_product and not any(is_hooked(m) for m in (last, attention, attention.qkv)):
            x, weight, bias = last.norm1(x), attention.qkv.weight, attention.qkv.bias
            query = F.linear(x[:, :1], weight[:width], None if bias is None else bias[:width])
            key = F.linear(x, weight[width : 2 * width], None if bias is None else bias[width : 2 * width])
        else:
            with watched([attention.qkv], lambda _, __, output: output) as captured:
                last(x)
            query, key, _ = captured[-1].split(width, dim=2)
            query = query[:, :1]
        return _attention(attention, query, key).mean(dim=1)[:, 0, self.prefix_tokens :]

    @torch.no_grad()
    def attention_maps(self, image: Tensor, kept: Tensor | None = None) -> Iterator[Tensor]:
        """Attention [B, N, N] of every block in turn, mean over heads, softmax over all N tokens. Raises as
        `cls_attention`."""
        self.need_class_token()
        self.need_kept_patches()
        x = self.tokens(image, kept)
        for block in self.model.blocks:
            attention = block.attn
            with watched([attention.qkv], lambda _, __, output: output) as captured:
                x = block(x)
            query, key, _ = captured[-1].split(attention.qkv.out_features // 3, dim=2)
            yield _attention(attention, query, key).mean(dim=1)

    def need_class_token(self) -> None:
        """Raise UnsupportedModel where the model has no class token, whose attention could rank patches."""
        if getattr(self.model, "cls_token", None) is None:
            raise UnsupportedModel(
                "attention from CLS needs a class token, and this model has none: use score='random'"
            )

    def need_kept_patches(self) -> None:
        """Raise UnsupportedModel where what the model answers for kept patches alone cannot be known."""
        if self._whole:
            raise UnsupportedModel(
                f"{self._whole}, so that it is not known what {type(self.model).__name__} answers for kept patches "
                "alone: remove it, or feed all patches (no stopping, images without kept sets)"
            )

    @property
    def reads_class_token(self) -> bool:
        """Whether the head reads the class token, by whose attention patches are ranked."""
        pooled = type(self.model).forward_head is VisionTransformer.forward_head
        prefix = getattr(self.model, "pool_include_prefix", False)
        return self.model.global_pool == "token" or prefix or not pooled

    def attention_outputs(self) -> AbstractContextManager[list[Tensor]]:
        """While open, forward passes append softmax(qk)v of every block, [B, N, h * head_dim], to the list."""
        return watched([block.attn.proj for block in self.model.blocks], lambda _, mixed, __: mixed)


def _attention(attention: Any, query: Tensor, key: Tensor) -> Tensor:
    """softmax [B, h, n, N] of timm's Attention for queries [B, n, D] and keys [B, N, D]."""
    query, key = (t.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for t in (query, key))
    query, key = attention.q_norm(query), attention.k_norm(key)
    scale = query.shape[-1] ** -0.5 if attention.fused_attn else attention.scale  # as timm does
    return ((query * scale) @ key.transpose(-2, -1)).softmax(dim=-1)


def _is_stochastic(module: nn.Module) -> bool:
    """Whether a module, as it is set now, draws random numbers: dropout or stochastic depth, in training."""
    chance = (
        getattr(module, "p", 0.0) if isinstance(module, nn.Dropout) else getattr(module, "drop_prob", 0.0)
    )
    return module.training and bool(chance)


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode and no weight gradients while open; the model's own modes and flags come back after it, when the
    last of those who have it open at once, in several threads, leaves."""
    modules, parameters = list(model.modules()), list(model.parameters())
    with _FREEZING:
        _hold(modules, "training")
        _hold(parameters, "requires_grad")
        model.eval()
        model.requires_grad_(False)
    try:
        yield model
    finally:
        with _FREEZING:
            for module, mode in _released(modules):
                module.training = mode
            for parameter, flag in _released(parameters):
                parameter.requires_grad_(flag)


def _hold(things: Sequence[Any], attribute: str) -> None:
    """Note how each was, unless somebody has frozen it already."""
    for thing in things:
        was, users = _FROZEN.get(id(thing), (getattr(thing, attribute), 0))
        _FROZEN[id(thing)] = was, users + 1


def _released(things: Sequence[Any]) -> list[tuple[Any, bool]]:
    """(thing, how it was) of those that nobody else holds frozen."""
    back = []
    for thing in things:
        was, users = _FROZEN.pop(id(thing))
        if users > 1:
            _FROZEN[id(thing)] = was, users - 1
        else:
            back.append((thing, was))
    return back


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

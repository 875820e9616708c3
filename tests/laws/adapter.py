"""Laws of the forward on kept patches, over small ViTs of any size and kind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

from laws.core import law, seeds
from smi import geometry
from smi.vit import adapt


@dataclass(frozen=True)
class Sized:
    """A small ViT and an input for it."""

    rows: int
    columns: int
    patch: tuple[int, int]
    channels: int
    heads: int
    depth: int
    options: tuple[tuple[str, Any], ...]
    share: float
    seed: int
    change: str = "none"

    def make(self) -> VisionTransformer:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = VisionTransformer(
                img_size=(self.rows * self.patch[0], self.columns * self.patch[1]),
                patch_size=self.patch,
                in_chans=self.channels,
                embed_dim=8 * self.heads,
                depth=self.depth,
                num_heads=self.heads,
                num_classes=4,
                **dict(self.options),
            )
            for parameter in model.parameters():  # timm's small weights would hide mistakes
                fan_in = parameter[0].numel() if parameter.ndim in (2, 4) else 4
                torch.nn.init.normal_(parameter, std=fan_in**-0.5)
        CHANGES[self.change](model)
        model.pretrained_cfg = {"mean": (0.5,) * self.channels, "std": (0.25,) * self.channels}
        return model.eval()

    @property
    def patches(self) -> int:
        return self.rows * self.columns

    def image(self) -> torch.Tensor:
        size = (2, self.channels, self.rows * self.patch[0], self.columns * self.patch[1])
        return torch.randn(size, generator=torch.Generator().manual_seed(self.seed + 1))

    def kept(self) -> torch.Tensor:
        count = max(1, round(self.share * self.patches))
        order = torch.rand(2, self.patches, generator=torch.Generator().manual_seed(self.seed + 2)).argsort(1)
        return order[:, :count].sort(1).values


def halve(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
    return output / 2


CHANGES = {  # what users do to a model before they give it
    "none": lambda model: None,
    "computed patch weight": lambda model: weight_norm(model.patch_embed.proj),
    "computed attention weight": lambda model: weight_norm(model.blocks[-1].attn.qkv),
    "pruned layer": lambda model: prune.l1_unstructured(model.blocks[0].mlp.fc1, "weight", 0.5),
    "hook on a block": lambda model: model.blocks[0].register_forward_hook(halve),
    "hook on the last attention": lambda model: model.blocks[-1].attn.register_forward_hook(halve),
}
OPTIONS = (
    (),
    (("reg_tokens", 2),),
    (("init_values", 0.3),),
    (("no_embed_class", True),),
    (("qk_norm", True),),
    (("global_pool", "avg"),),
    (("pre_norm", True), ("qkv_bias", False)),
)
sized = st.builds(
    Sized,
    rows=st.integers(1, 4),
    columns=st.integers(2, 5),
    patch=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels=st.integers(1, 3),
    heads=st.integers(1, 3),
    depth=st.integers(1, 3),
    options=st.sampled_from(OPTIONS),
    share=st.floats(0, 1),
    seed=seeds,
)
touched = st.builds(replace, sized, change=st.sampled_from(sorted(CHANGES)))
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


@law(touched, examples=40)
@torch.no_grad()
def all_patches_are_the_model_itself(case):
    model, image = case.make(), case.image()
    everything = torch.arange(case.patches).repeat(2, 1)
    torch.testing.assert_close(adapt(model).forward(image), model(image), **CLOSE)
    torch.testing.assert_close(adapt(model).forward(image, everything), model(image), **CLOSE)


@law(touched, examples=40)
@torch.no_grad()
def kept_patches_are_the_model_with_the_other_tokens_taken_out(case):
    model, image, kept = case.make(), case.image(), case.kept()
    x, prefix = model._pos_embed(model.patch_embed(image)), model.num_prefix_tokens
    x = torch.cat([x[:, :prefix], x[:, prefix:].take_along_dim(kept.unsqueeze(2), 1)], 1)
    wanted = model.forward_head(model.norm(model.blocks(model.norm_pre(x))))
    torch.testing.assert_close(adapt(model).forward(image, kept), wanted, **CLOSE)


@law(touched, examples=30)
@torch.no_grad()
def what_is_not_kept_is_not_seen(case):
    model, image, kept = case.make(), case.image(), case.kept()
    grid = adapt(model).grid
    other = torch.full_like(image, float("nan"))
    geometry.put_patches(other, kept, geometry.take_patches(image, kept, grid), grid)
    assert torch.equal(adapt(model).forward(other, kept), adapt(model).forward(image, kept))


@law(touched, examples=30)
@torch.no_grad()
def attention_from_cls_is_the_last_blocks(case):
    model, image, kept = case.make(), case.image(), case.kept()
    seen, last = [], model.blocks[-1].attn
    last.fused_attn = False
    last.attn_drop.register_forward_hook(lambda _, __, output: seen.append(output))
    x, prefix = model._pos_embed(model.patch_embed(image)), model.num_prefix_tokens
    x = torch.cat([x[:, :prefix], x[:, prefix:].take_along_dim(kept.unsqueeze(2), 1)], 1)
    model.blocks(model.norm_pre(x))
    wanted = seen[0].mean(1)[:, 0, prefix:]
    torch.testing.assert_close(adapt(model).cls_attention(image, kept), wanted, **CLOSE)

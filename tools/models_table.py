"""`python -m tools.models_table`: docs/models.md, which of timm's ViTs smi takes. Each name is tried, two blocks deep.

Every name is made without memory (torch's meta device) and given to the adapter. What that takes is made again with
random weights, one at a time, and held to timm's own logits on a random image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

import smi
from bench.engine.atomic import write_text
from smi.vit import adapt

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"
AGREE = 1e-4  # of logits in float32, as a share of the greatest
CLASSES = 10  # of names that timm makes without a classifier
# timm's modules of transformers that cut an image into patches
FAMILIES = (
    *("vision_transformer", "deit", "vision_transformer_hybrid", "vitamin", "vision_transformer_relpos"),
    *("vision_transformer_sam", "beit", "eva", "naflexvit", "deepseek_vit", "gemma4_vit", "qwen3_vit"),
    *("cait", "xcit", "convit", "crossvit", "tnt", "pit", "volo", "visformer", "swin_transformer"),
    *("swin_transformer_v2", "swin_transformer_v2_cr", "mvitv2", "hiera", "hieradet_sam2", "twins", "pvt_v2"),
    *("nest", "gcvit", "davit", "levit", "coat", "tiny_vit"),
)
# words in names that say of what kind a model is, the most special first
KINDS = {
    "distilled": "DeiT, distilled",
    "deit3": "DeiT III",
    "deit": "DeiT",
    "aimv2": "AIMv2",
    "beit3": "BEiT-3",
    "dinov2": "DINOv2",
    "eva_": "EVA",
    "flexivit": "FlexiViT",
    "intern": "InternViT",
    "radio": "RADIO",
    "siglip": "SigLIP",
    "tipsv2": "TIPSv2",
    "clip": "CLIP",
}
HEAD = """\
# Which of timm's models

Every name of timm {version} that is a Vision Transformer or a relative of one: {runs} run, {refused} are refused.
Made by `nox -s models_table`; do not edit. Models of other libraries: [library.md](library.md#which-models).

## What runs

Each was made with random weights and two blocks, since all of its blocks are alike, and held to timm's own logits on a
random image; the last column is the greatest difference, as a share of the greatest logit. Then two iterations of a
sparse inversion were run, and a quantized copy was asked for. Where there is no class token, patches are ranked by
`score="random"`, or by a score of your own.

A star: timm makes it without a classifier. `smi.quantize` takes it so, with pictures of your own, where the table says
yes; for all else give it one, as was done here: `timm.create_model(name, num_classes=10)`.

| name | kind | image | patches | pooling | what is special | quantized | difference |
|---|---|---|---|---|---|---|---|
"""
REFUSALS = """
## What is refused

In one line, before anything is computed. All other names of timm are other networks, of which `smi.invert` takes CNNs
with BatchNorm.

| the line | names |
|---|---|
"""


@dataclass(frozen=True)
class Tried:
    """What came of a name. refusal: smi's line, empty where it runs, and then the other fields are told."""

    name: str
    refusal: str = ""
    headless: bool = False
    image: str = ""
    patches: str = ""
    pooling: str = ""
    special: str = ""
    quantized: str = ""
    difference: float = 0.0

    @property
    def row(self) -> str:
        """Its line in the page's table of what runs."""
        kind = next((kind for word, kind in KINDS.items() if word in self.name), "ViT")
        name = f"`{self.name}`" + (r" \*" if self.headless else "")
        cells = (
            name,
            kind,
            self.image,
            self.patches,
            self.pooling,
            self.special,
            self.quantized,
            f"{self.difference:.0e}",
        )
        return f"| {' | '.join(cells)} |\n"


class Differs(Exception):
    """smi took a model and gave other logits than timm."""


def names() -> list[str]:
    """All of timm's names in these families, as timm orders them."""
    families = set(FAMILIES) & set(timm.list_modules())
    known = {name for family in families for name in timm.list_models(module=family)}
    return [name for name in timm.list_models() if name in known]


def tried(name: str) -> Tried:
    """A name, made small and given to smi. Raises Differs where smi answers otherwise than timm."""
    headless = False
    with torch.device("meta"):
        model = small(name)
        if getattr(model, "num_classes", None) == 0:
            headless, model = True, small(name, num_classes=CLASSES)
    try:
        adapt(model)
    except smi.SmiError as refusal:
        return Tried(name, str(refusal))
    model = with_random_weights(small(name, **({"num_classes": CLASSES} if headless else {})))
    difference = difference_on_an_image(model)
    if not difference < AGREE:
        raise Differs(f"{name}: smi's logits differ from timm's by {difference:.1e}; allowed: {AGREE:.0e}")
    invert(model)
    return Tried(name, "", headless, *described(model), quantized(model), difference)


def small(name: str, **settings: Any) -> nn.Module:
    """The model with two blocks, or as it is where its class takes no depth or no such one."""
    try:
        return timm.create_model(name, depth=2, **settings).eval()
    except (TypeError, ValueError, AssertionError):
        return timm.create_model(name, **settings).eval()


@torch.no_grad()
def with_random_weights(model: nn.Module) -> nn.Module:
    """All of its weights random: timm's own zeros, of heads, tokens and biases, would hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim in (2, 4) else 4
        parameter.normal_(std=fan_in**-0.5, generator=generator)
    return model


@torch.no_grad()
def difference_on_an_image(model: Any) -> float:
    """Greatest difference of the adapter's logits from the model's, as a share of the greatest logit.

    The adapter is fed the whole image, and all patches as if they had been kept.
    """
    tokens = adapt(model)
    image = torch.randn(
        1, tokens.channels, *model.patch_embed.img_size, generator=torch.Generator().manual_seed(1)
    )
    wanted = model(image)
    every = torch.arange(tokens.num_patches).unsqueeze(0)
    found = [tokens.forward(image), tokens.forward(image, every)]
    return max(float((one - wanted).abs().max() / wanted.abs().max()) for one in found)


def invert(model: Any) -> None:
    """Two iterations of a sparse inversion, which raise where it does not work."""
    score = "random" if model.cls_token is None else "cls_attention"
    smi.invert(
        model, count=1, iterations=2, stopping=smi.Stopping(at=1, drop=0.5, score=score), progress=False
    )


def quantized(model: nn.Module) -> str:
    """Whether it has a quantized copy: yes, or smi's line."""
    try:
        smi.QuantizedViT(model, 8, 8)
    except smi.SmiError as refusal:
        return str(refusal)
    return "yes"


def described(model: Any) -> tuple[str, str, str, str]:
    """(image, patches, pooling, what is special) of a VisionTransformer, in words."""
    embed, block = model.patch_embed, model.blocks[0]
    registers = getattr(model, "num_reg_tokens", 0)
    norm, mlp = type(block.norm1).__name__, type(block.mlp).__name__
    special = {
        "no class token": model.cls_token is None,
        f"{registers} register{'s' if registers > 1 else ''}": registers,
        "LayerScale": not isinstance(block.ls1, nn.Identity),
        "norm of queries and keys": not isinstance(block.attn.q_norm, nn.Identity),
        "norm before the blocks": not isinstance(model.norm_pre, nn.Identity),
        "norms in attention": not isinstance(getattr(block.attn, "norm", nn.Identity()), nn.Identity),
        norm: norm != "LayerNorm",
        mlp: mlp != "Mlp",
        "no positions": model.pos_embed is None,
    }
    (height, width), (rows, columns) = embed.img_size, embed.patch_size
    return (
        f"{height} × {width}",
        f"{height // rows} × {width // columns} of {rows} × {columns}",
        {"token": "class token", "avg": "mean"}.get(model.global_pool, model.global_pool),
        ", ".join(word for word, holds in special.items() if holds),
    )


def page(every: Iterable[Tried]) -> str:
    """The whole page."""
    runs, refused = [], {}
    for one in every:
        if one.refusal:
            refused.setdefault(one.refusal, []).append(f"`{one.name}`")
        else:
            runs.append(one.row)
    count = sum(len(of_reason) for of_reason in refused.values())
    lines = [f"| {reason} | {', '.join(of_reason)} |\n" for reason, of_reason in sorted(refused.items())]
    head = HEAD.format(version=timm.__version__, runs=len(runs), refused=count)
    return "".join([head, *runs, REFUSALS, *lines])


def told(name: str) -> Tried:
    """`tried`, with a line of what came of it: all names take some ten minutes."""
    one = tried(name)
    print(f"{name}: {one.refusal or 'runs'}", flush=True)
    return one


def main() -> None:
    try:
        text = page(told(name) for name in names())
    except Differs as fault:
        raise SystemExit(str(fault)) from None
    write_text(PAGE, text)


if __name__ == "__main__":
    main()

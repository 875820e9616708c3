"""The adapter on the models that users have: fed all patches it is the model itself, fed some it is the model's own
modules with the other tokens taken out. Runs under every timm version of `nox -s timm_range`."""

import os

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.testing import assert_close

import smi
from smi.vit import adapt

LARGE = pytest.mark.slow
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
ROUND = {"rtol": 1e-4, "atol": 1e-5}


def test_the_version_of_timm_is_the_one_meant():
    """`nox -s timm_range` says which one it laid over the environment."""
    assert timm.__version__ == os.environ.get("SMI_EXPECTED_TIMM", timm.__version__)


def from_timm(name, **options):
    return lambda: timm.create_model(name, **options)


def small(**options):
    return lambda: VisionTransformer(**{**SMALL, **options})


MODELS = {
    "DeiT tiny": from_timm("deit_tiny_patch16_224"),
    "DeiT small": from_timm("deit_small_patch16_224"),
    "DeiT base": from_timm("deit_base_patch16_224"),
    "ViT/32 base": from_timm("vit_base_patch32_224", num_classes=100),
    "distilled DeiT tiny": from_timm("deit_tiny_distilled_patch16_224"),
    "plain": small(),
    "registers": small(reg_tokens=4),
    "registers, no position for prefix": small(reg_tokens=4, no_embed_class=True),
    "class token without position": small(no_embed_class=True),
    "LayerScale": small(init_values=0.5),
    "average-pooled": small(global_pool="avg"),
    "average-pooled, no class token": small(global_pool="avg", class_token=False),
    "average-pooled, normed before": small(global_pool="avg", fc_norm=False),
    "max-pooled": small(global_pool="max"),
    "norm before the blocks": small(pre_norm=True),
    "norm of queries and keys": small(qk_norm=True),
    "no qkv bias": small(qkv_bias=False),
    "one channel": small(in_chans=1),
    "not square": small(img_size=(24, 40)),
    "patches not square": small(img_size=(24, 40), patch_size=(4, 10)),
    "one block": small(depth=1),
    "no position at all": small(pos_embed="none"),
    "DeiT-III": from_timm("deit3_small_patch16_224", depth=2, num_classes=7),
}
BIG = {"DeiT base", "ViT/32 base"}
SINCE = {
    "max-pooled": (1, 0, 7),
    "no position at all": (1, 0, 26),
}  # the first timm that has, or has right, the model
TIMM = tuple(int(part) for part in timm.__version__.split(".")[:3])
KNOWN = [name for name in MODELS if SINCE.get(name, TIMM) <= TIMM]


@pytest.fixture(
    params=[pytest.param(name, marks=LARGE if name in BIG else ()) for name in KNOWN], scope="module"
)
def model(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = MODELS[request.param]().eval().requires_grad_(False)
        # timm starts with small weights, and zero heads and tokens: they would hide mistakes
        for parameter in made.parameters():
            fan_in = parameter[0].numel() if parameter.ndim in (2, 4) else 4
            parameter.normal_(std=fan_in**-0.5)
    return made


@pytest.fixture
def image(model):
    channels = model.patch_embed.proj.in_channels
    return torch.randn(2, channels, *model.patch_embed.img_size, generator=torch.Generator().manual_seed(1))


def some_patches(tokens, batch=2):
    generator = torch.Generator().manual_seed(2)
    order = torch.rand(batch, tokens.num_patches, generator=generator).argsort(1)
    return order[:, : max(1, tokens.num_patches // 3)].sort(1).values


def own_modules(model, image, kept):
    """timm's own steps with the tokens of the other patches taken out after the position embedding."""
    x, prefix = model._pos_embed(model.patch_embed(image)), model.num_prefix_tokens
    chosen = x[:, prefix:].take_along_dim(kept.unsqueeze(2), dim=1)
    x = model.blocks(model.norm_pre(torch.cat([x[:, :prefix], chosen], dim=1)))
    return model.forward_head(model.norm(x))


def test_all_patches_are_the_model_itself(model, image):
    tokens = adapt(model)
    assert_close(tokens.forward(image), model(image), **ROUND)
    everything = torch.arange(tokens.num_patches).repeat(2, 1)
    assert_close(tokens.forward(image, everything), model(image), **ROUND)


def test_kept_patches_are_the_models_own_modules_without_the_others(model, image):
    tokens = adapt(model)
    kept = some_patches(tokens)
    sparse = tokens.forward(image, kept)
    assert_close(sparse, own_modules(model, image, kept), **ROUND)
    assert not torch.allclose(sparse, model(image), rtol=1e-3, atol=1e-3)


def test_attention_of_the_class_token_is_that_of_the_last_block(model, image):
    tokens = adapt(model)
    if getattr(model, "cls_token", None) is None:
        with pytest.raises(smi.UnsupportedModel, match="class token"):
            tokens.cls_attention(image)
        return
    seen, last = [], model.blocks[-1].attn
    fused, last.fused_attn = last.fused_attn, False
    hook = last.attn_drop.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        model(image)
    finally:
        hook.remove()
        last.fused_attn = fused
    wanted = seen[0].mean(1)[:, 0, model.num_prefix_tokens :]
    assert_close(tokens.cls_attention(image), wanted, **ROUND)


def test_attention_outputs_are_what_enters_the_projection(model, image):
    tokens = adapt(model)
    with tokens.attention_outputs() as captured:
        tokens.forward(image)
    assert len(captured) == len(model.blocks)
    for block, output in zip(model.blocks, captured, strict=True):
        assert output.shape == (2, tokens.num_patches + model.num_prefix_tokens, block.attn.proj.in_features)
        assert not block.attn.proj._forward_pre_hooks


def test_the_paper_loop_runs_on_it(model):
    score = "random" if getattr(model, "cls_token", None) is None else "cls_attention"
    channels = model.patch_embed.proj.in_channels
    model.pretrained_cfg = {"mean": (0.5,) * channels, "std": (0.25,) * channels}
    images = smi.invert(
        model, 1, smi.recipe("deepinversion", iterations=3), smi.Stopping(at=(1, 2), drop=0.3, score=score)
    )
    assert images.kept.shape == (
        1,
        smi.Stopping(at=(1, 2), drop=0.3).kept_counts(adapt(model).num_patches)[-1],
    )


class LowRank(nn.Linear):
    """A layer with an addition of low rank, as adapters for fine-tuning are."""

    def forward(self, x):
        return super().forward(x) + x @ self.down @ self.up


def with_low_rank():
    model = small(depth=2)().eval()
    for block in model.blocks:
        block.attn.qkv.__class__ = LowRank
        width, out = block.attn.qkv.in_features, block.attn.qkv.out_features
        block.attn.qkv.down = nn.Parameter(torch.randn(width, 2))
        block.attn.qkv.up = nn.Parameter(torch.randn(2, out))
    return model


def test_layers_that_add_to_their_product_are_honoured():
    torch.manual_seed(0)
    model = with_low_rank()
    tokens, size = adapt(model), model.patch_embed.img_size
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        assert_close(tokens.forward(image), model(image), **ROUND)
        found = []
        model.blocks[-1].attn.fused_attn = False
        hook = model.blocks[-1].attn.attn_drop.register_forward_hook(lambda *given: found.append(given[2]))
        model(image)
        hook.remove()
        of_class = found[0].mean(1)[:, 0, model.num_prefix_tokens :]
        assert_close(tokens.cls_attention(image), of_class, **ROUND)


class OwnConvolution(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) + 1


def with_own_convolution():
    model = small()()
    model.patch_embed.proj.__class__ = OwnConvolution
    return model


def with_tied_blocks():
    model = small(depth=2)()
    model.blocks[1] = model.blocks[0]
    return model


UNSUPPORTED = {
    "Swin": (from_timm("swin_tiny_patch4_window7_224", img_size=56, window_size=7), "SwinTransformer"),
    "relative positions": (from_timm("vit_relpos_small_patch16_224"), "VisionTransformerRelPos"),
    "BEiT": (from_timm("beit_base_patch16_224", depth=1), "Beit"),
    "EVA": (from_timm("eva02_tiny_patch14_224", depth=1), "Eva"),
    "attention pool": (small(global_pool="map", class_token=False), "pooling by attention"),
    "no head": (small(num_classes=0), "no linear classifier head"),
    "a CNN": (from_timm("resnet18"), "ResNet"),
    "another convolution": (with_own_convolution, "patch_embed.proj is a OwnConvolution"),
    "tied blocks": (with_tied_blocks, "blocks share their layers"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_handled_is_refused_by_name(name):
    make, named = UNSUPPORTED[name]
    with torch.device("meta"):
        try:
            model = make()
        except (NotImplementedError, RuntimeError):  # a constructor that computes with values
            model = None
    model = make() if model is None else model
    with pytest.raises(smi.UnsupportedModel, match=named) as caught:
        adapt(model)
    assert "\n" not in str(caught.value)


def test_a_class_token_that_timm_drops_is_refused(monkeypatch):
    """As versions of timm before 1.0.26 do where there is no position embedding."""
    model = small()()
    model.pos_embed = None
    monkeypatch.setattr(VisionTransformer, "_pos_embed", lambda self, x: x)
    with pytest.raises(smi.UnsupportedModel, match="drops its class token"):
        adapt(model)


def test_weights_from_a_local_file_load_as_pretrained_ones_do(tmp_path):
    """timm's own pretrained path, with a safetensors file in the place of the hub's."""
    torch.manual_seed(0)
    source = timm.create_model("deit_tiny_patch16_224", num_classes=1000, depth=1).eval()
    path = tmp_path / "model.safetensors"
    save_file(source.state_dict(), path)
    loaded = timm.create_model(
        "deit_tiny_patch16_224", pretrained=True, pretrained_cfg_overlay={"file": str(path)}, depth=1
    ).eval()
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert_close(adapt(loaded).forward(image), source(image), **ROUND)
    mean, std = smi.vit.normalisation(loaded)
    assert_close(mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    assert_close(std.flatten(), torch.tensor([0.229, 0.224, 0.225]))

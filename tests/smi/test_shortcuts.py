"""Models that compute otherwise than their weights say: the adapter does as the model does, or refuses it by name.

The oracle is the model's own forward pass, and for kept patches its own modules with the other tokens taken out.
"""

import types

import pytest
import torch
from timm.layers import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.testing import assert_close

import smi
from smi.vit import adapt

SHORT = smi.recipe("deepinversion", iterations=3, learning_rate=0.1)
STOPPING = smi.Stopping(at=(1,), drop=0.5)
ROUND = {"rtol": 1e-4, "atol": 1e-5}


def lively(make, **overrides):
    """timm's small weights would hide mistakes."""
    model = make(**overrides)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.normal_(std=(parameter[0].numel() if parameter.ndim in (2, 4) else 4) ** -0.5)
    return model


def batch():
    generator = torch.Generator().manual_seed(2)
    image = torch.randn(2, 3, 16, 16, generator=generator)
    return image, torch.rand(2, 16, generator=generator).argsort(1)[:, :5].sort(1).values


def own_modules(model, image, kept):
    """Logits, and the last block's attention from CLS to each kept patch."""
    seen, last = [], model.blocks[-1].attn
    drop = last.attn_drop.register_forward_hook(lambda _, __, output: seen.append(output))
    fused, last.fused_attn = last.fused_attn, False
    x, prefix = model._pos_embed(model.patch_embed(image)), model.num_prefix_tokens
    x = torch.cat([x[:, :prefix], x[:, prefix:].take_along_dim(kept.unsqueeze(2), 1)], 1)
    logits = model.forward_head(model.norm(model.blocks(model.norm_pre(x))))
    drop.remove()
    last.fused_attn = fused
    return logits, seen[0].mean(1)[:, 0, prefix:]


def flipped(module, given, output):
    """As a hook: the output from right to left. (Twice the output would be lost in the next norm.)"""
    return output.flip(-1)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


class LowRank(nn.Linear):
    """A layer with an adapter that is not merged."""

    def forward(self, x):
        return super().forward(x) + x.sum(-1, keepdim=True)


class MixesTokens(nn.Module):
    def forward(self, x):
        return x - x.mean(dim=1, keepdim=True)


def pruned_and_loaded(model):
    """Its weight is what the hook made before the loading: computed anew in the next forward pass alone."""
    prune.l1_unstructured(model.patch_embed.proj, "weight", 0.3)
    state = {name: value + 0.1 for name, value in model.state_dict().items()}
    model.load_state_dict(state)


def replace_qkv(model):
    model.blocks[-1].attn.qkv.__class__ = LowRank


def replace_forward(module, change):
    """On the instance, as monkey-patching does."""
    plain = module.forward
    module.forward = lambda *given, **named: change(plain(*given, **named))


def mix_in_the_last_block(model):
    model.blocks[-1].mlp.act = MixesTokens()


def scale_attention(model):
    model.blocks[-1].attn.scale *= 3
    model.blocks[-1].attn.fused_attn = False


HONOURED = {
    "nothing": lambda m: None,
    "a pruned patch embedding": pruned_and_loaded,
    "weight norm of old on the patch embedding": lambda m: nn.utils.weight_norm(m.patch_embed.proj),
    "spectral norm of old on the patch embedding": lambda m: nn.utils.spectral_norm(
        m.patch_embed.proj
    ).eval(),
    "weight norm on the patch embedding": lambda m: parametrizations.weight_norm(m.patch_embed.proj),
    "a parametrized class token": lambda m: parametrize.register_parametrization(m, "cls_token", Doubled()),
    "a parametrized qkv": lambda m: parametrize.register_parametrization(
        m.blocks[-1].attn.qkv, "weight", Doubled()
    ),
    "weight norm of old on qkv": lambda m: nn.utils.weight_norm(m.blocks[-1].attn.qkv),
    "spectral norm on an MLP": lambda m: parametrizations.spectral_norm(m.blocks[0].mlp.fc1).eval(),
    "a pruned MLP": lambda m: prune.random_unstructured(m.blocks[-1].mlp.fc1, "weight", 0.5),
    "an adapter on qkv": replace_qkv,
    "a hook on a block": lambda m: m.blocks[0].register_forward_hook(flipped),
    "a hook on the last block": lambda m: m.blocks[-1].register_forward_hook(flipped),
    "a hook before the last block": lambda m: m.blocks[-1].register_forward_pre_hook(
        lambda _, given: (given[0].flip(-1),)
    ),
    "a hook on the last attention": lambda m: m.blocks[-1].attn.register_forward_pre_hook(
        lambda _, given: (given[0].flip(-1),)
    ),
    "a hook on the last norm": lambda m: m.norm.register_forward_hook(flipped),
    "a hook on the head": lambda m: m.head.register_forward_hook(flipped),
    "a replaced forward of a block": lambda m: replace_forward(m.blocks[-1], lambda x: x.flip(-1)),
    "a replaced forward of an MLP": lambda m: replace_forward(m.blocks[-1].mlp, lambda x: x.flip(-1)),
    "a replaced forward of qkv": lambda m: replace_forward(m.blocks[-1].attn.qkv, lambda x: x.flip(-1)),
    "tokens mixed in the last block": mix_in_the_last_block,
    "another scale of attention": scale_attention,
}

IN_ITS_OWN_WAY = {
    "hook on the model": lambda m: m.register_forward_hook(flipped),
    "hook before the model": lambda m: m.register_forward_pre_hook(lambda _, given: (given[0].flip(-1),)),
    "hook on the patch embedding": lambda m: m.patch_embed.register_forward_hook(flipped),
    "hook on its convolution": lambda m: m.patch_embed.proj.register_forward_hook(flipped),
    "hook on all blocks": lambda m: m.blocks.register_forward_hook(flipped),
    "forward": lambda m: replace_forward(m, lambda x: x.flip(-1)),
    "forward_features": lambda m: setattr(
        m, "forward_features", lambda x, **_: VisionTransformer.forward_features(m, x).flip(-1)
    ),
    "forward_head": lambda m: setattr(
        m, "forward_head", lambda x: 2 * VisionTransformer.forward_head(m, x.flip(1))
    ),
    "_pos_embed": lambda m: setattr(
        m, "_pos_embed", types.MethodType(lambda s, x: 2 * VisionTransformer._pos_embed(s, x), m)
    ),
    "forward of the patch embedding": lambda m: replace_forward(m.patch_embed, lambda x: x.flip(-1)),
    "forward of its convolution": lambda m: replace_forward(m.patch_embed.proj, lambda x: x.flip(-1)),
    "forward of the blocks": lambda m: replace_forward(m.blocks, lambda x: x.flip(-1)),
    "tokens mixed by the patch embedding": lambda m: setattr(m.patch_embed, "norm", MixesTokens()),
}


@pytest.mark.parametrize("name", [*HONOURED, *IN_ITS_OWN_WAY])
@torch.no_grad()
def test_fed_all_patches_it_answers_as_the_model_does(tiny_vit, name):
    model, (image, _) = lively(tiny_vit), batch()
    plain = model(image)
    (HONOURED | IN_ITS_OWN_WAY)[name](model)
    found = adapt(model).forward(image)  # first: the model's own pass would compute what hooks compute
    wanted = model(image)
    assert_close(found, wanted, **ROUND)
    same = torch.allclose(wanted, plain, **ROUND)
    assert same == (name == "nothing" or name.startswith("weight norm"))  # the others compute something else


@pytest.mark.parametrize("name", HONOURED)
@torch.no_grad()
def test_fed_some_patches_its_own_modules_are_run(tiny_vit, name):
    model, (image, kept) = lively(tiny_vit), batch()
    HONOURED[name](model)
    tokens = adapt(model)
    logits, attention = tokens.forward(image, kept), tokens.cls_attention(image, kept)
    wanted, attended = own_modules(model, image, kept)
    assert_close(logits, wanted, **ROUND)
    assert_close(attention, attended, **ROUND)


@pytest.mark.parametrize("name", IN_ITS_OWN_WAY)
def test_kept_patches_are_refused_before_any_work_where_their_answer_is_not_known(tiny_vit, name):
    model, (image, kept) = lively(tiny_vit), batch()
    IN_ITS_OWN_WAY[name](model)
    tokens = adapt(model)
    for use in (
        lambda: tokens.forward(image, kept),
        lambda: tokens.cls_attention(image),
        lambda: smi.invert(model, 1, SHORT, STOPPING, should_stop=pytest.fail),
    ):
        with pytest.raises(
            smi.UnsupportedModel, match=r"^[^\n]*not known what VisionTransformer answers[^\n]*$"
        ):
            use()


@pytest.mark.parametrize("on", [lambda m: m, lambda m: m.blocks[-1], lambda m: m.blocks[-1].attn.qkv])
def test_hooks_on_the_backward_pass_are_honoured(tiny_vit, on):
    model, (image, _) = lively(tiny_vit), batch()
    on(model).register_full_backward_hook(
        lambda _, given, __: tuple(g if g is None else 2 * g for g in given)
    )
    gradients = []
    for forward in (adapt(model).forward, model):
        image.grad = None
        forward(image.requires_grad_()).square().sum().backward()
        gradients.append(image.grad)
    assert_close(*gradients, **ROUND)


class OwnAttention(Attention):
    def forward(self, x, **further):
        return 0.5 * super().forward(x)


OwnAttention.__name__ = "Attention"


class OwnEmbedding(PatchEmbed):
    def forward(self, x):
        return 2 * super().forward(x)


def with_own_attention(model):
    model.blocks[1].attn.__class__ = OwnAttention


def with_own_embedding(model):
    model.patch_embed.__class__ = OwnEmbedding


def overlapping(model):
    model.patch_embed.proj = nn.Conv2d(3, 16, 6, stride=4, padding=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_own_attention, r"blocks.1.attn is a Attention; only timm's own"),
        (lambda m: replace_forward(m.blocks[0].attn, lambda x: x), r"blocks.0.attn.forward\(\) was replaced"),
        (with_own_embedding, "patch embedding OwnEmbedding"),
        (overlapping, r"patch_embed.proj has kernel_size \(6, 6\); only \(4, 4\)"),
        (lambda m: setattr(m, "global_pool", ""), "does not pool its tokens"),
    ],
)
def test_what_is_not_known_at_all_is_refused_by_name(tiny_vit, change, message):
    model = tiny_vit()
    change(model)
    with pytest.raises(smi.UnsupportedModel, match=message):
        adapt(model)


def test_two_heads_of_other_classes_are_refused(tiny_vit):
    model = VisionTransformerDistilled(img_size=16, patch_size=4, embed_dim=16, depth=1, num_heads=2)
    model.head = nn.Linear(16, 5)
    with pytest.raises(smi.UnsupportedModel, match="head has 5 classes, head_dist 1000"):
        adapt(model)


def test_a_pruned_model_is_inverted_in_full_and_sparsely_and_in_half_precision(tiny_vit):
    """Its weight is a tensor with a history, which torch does not copy by itself."""
    model = lively(tiny_vit)
    prune.l1_unstructured(model.patch_embed.proj, "weight", 0.3)
    for precision in ("fp32", "bf16"):
        execution = smi.Execution(precision=precision)
        assert smi.invert(model, 1, SHORT, STOPPING, execution=execution).kept.shape == (1, 8)
    trained = smi.transfer(model, model, smi.invert(model, 2, SHORT, STOPPING), steps=1)
    assert prune.is_pruned(trained)


@pytest.mark.parametrize("execution", [smi.Execution(precision="bf16"), smi.Execution(compile=True)])
def test_copies_of_models_with_replaced_methods_are_refused(tiny_vit, execution):
    model = tiny_vit()
    replace_forward(model.blocks[0].mlp, lambda x: x.flip(-1))
    with pytest.raises(smi.UnsupportedModel, match=r"blocks.0.mlp.forward\(\) was replaced on the instance"):
        smi.invert(model, 1, SHORT, execution=execution)


def test_prepacked_weights_are_not_put_in_the_place_of_replaced_methods(tiny_vit, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    model = lively(tiny_vit, embed_dim=192)
    plain = smi.invert(model, 1, SHORT)
    replace_forward(model.blocks[0].mlp.fc1, lambda x: x.flip(-1))
    assert not smi.invert(model, 1, SHORT).pixels.equal(plain.pixels)


@pytest.mark.parametrize("options", [{"global_pool": "avg"}, {"global_pool": "max"}])
def test_a_class_token_that_the_head_never_reads_is_named(tiny_vit, options):
    model = tiny_vit(**options)
    with pytest.warns(UserWarning, match=f"pools by '{options['global_pool']}': its head never reads"):
        smi.invert(model, 1, SHORT, STOPPING)


@pytest.mark.filterwarnings("error")
def test_a_class_token_that_the_head_reads_is_not_worth_a_word(tiny_vit):
    smi.invert(tiny_vit(), 1, SHORT, STOPPING)
    smi.invert(tiny_vit(global_pool="avg"), 1, SHORT, smi.Stopping(at=(1,), drop=0.5, score="random"))

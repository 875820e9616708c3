"""Scores beside the paper's: each against a plain computation on timm's own model, on all patches and on some."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.testing import assert_close

import smi
from smi.geometry import patchify
from smi.vit import adapt

NEW = ("attention_rollout", "gradient_norm", "pixel_contrast")


@pytest.fixture
def model(tiny_vit) -> VisionTransformer:
    return tiny_vit(embed_dim=24, depth=3, num_heads=3, qk_norm=True, reg_tokens=2)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def score(name: str, model, image, kept) -> torch.Tensor:
    return smi.SCORES[name](adapt(model), image, kept, torch.Generator())


def everything(image) -> torch.Tensor:
    return torch.arange(16).expand(len(image), -1)


def maps(model, image) -> list[torch.Tensor]:
    """Every block's attention, mean over heads, from timm's own modules."""
    x = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(image))))
    found = []
    for block in model.blocks:
        qkv = block.attn.qkv(block.norm1(x)).reshape(*x.shape[:2], 3, 3, 8).permute(2, 0, 3, 1, 4)
        query, key = block.attn.q_norm(qkv[0]), block.attn.k_norm(qkv[1])
        found.append((query @ key.transpose(-2, -1) * 8**-0.5).softmax(-1).mean(1))
        x = block(x)
    return found


def test_rollout_multiplies_the_blocks_attention_mixed_with_what_goes_past_it(model, image):
    with torch.no_grad():
        flow = torch.eye(19)
        for attention in maps(model, image):
            flow = (0.5 * attention + 0.5 * torch.eye(19)) @ flow
    found = score("attention_rollout", model, image, everything(image))
    assert_close(found, flow[:, 0, 3:], rtol=1e-4, atol=1e-6)  # behind CLS and two registers
    assert (found > 0).all() and (found.sum(1) < 1).all()


def test_maps_of_the_last_block_hold_what_cls_attends_to(model, image):
    kept = torch.stack([torch.randperm(16)[:7].sort().values for _ in image])
    adapted = adapt(model)
    *_, last = adapted.attention_maps(image, kept)
    assert_close(last[:, 0, 3:], adapted.cls_attention(image, kept), rtol=1e-4, atol=1e-6)
    assert_close(last.sum(2), torch.ones(3, 10))


def test_gradient_norm_is_that_of_the_models_own_answer(model, image):
    pixels = image.clone().requires_grad_()
    chosen = model(pixels).log_softmax(1)
    (gradient,) = torch.autograd.grad(chosen.gather(1, chosen.argmax(1, keepdim=True)).sum(), pixels)
    expected = patchify(gradient, adapt(model).grid).norm(dim=2)
    with torch.no_grad():  # as inside an inversion
        found = score("gradient_norm", model, image, everything(image))
    assert_close(found, expected, rtol=1e-4, atol=1e-7)
    assert not found.requires_grad and not image.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_contrast_is_none_where_a_patch_is_plain_and_grows_with_its_pixels(model, image):
    image[:, :, :4, :4] = image[:, :1, :1, :1]
    image[:, :, 4:8, :4] *= 3
    before, kept = image.clone(), everything(image)
    found = score("pixel_contrast", model, image, kept)
    expected = image.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4).std(-1, correction=0).mean(1).flatten(1)
    assert_close(found, expected)
    assert (found[:, 0] < 1e-6).all() and (found.argmax(1) == 4).all() and image.equal(before)


@pytest.mark.parametrize("name", NEW)
def test_they_rank_the_kept_patches_in_their_order(name, model, image):
    """The same set of patches, told in another order of images, has the same importance."""
    kept = torch.stack(
        [torch.randperm(16, generator=torch.Generator().manual_seed(s))[:6].sort().values for s in range(3)]
    )
    found = score(name, model, image, kept)
    assert found.shape == kept.shape and torch.isfinite(found).all()
    turned = score(name, model, image.flip(0), kept.flip(0))
    assert_close(found, turned.flip(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("schedule", [smi.Stopping((3, 6), 0.4), smi.Rebirth(3)])
def test_an_inversion_by_each_gives_its_own_images_twice_alike(name, schedule, model):
    schedule = type(schedule)(**{**vars(schedule), "score": name})
    one, other = (
        smi.invert(model, 6, stopping=schedule, iterations=9, seed=3, progress=False) for _ in range(2)
    )
    assert one == other and one.made["score"] == name
    by_attention = type(schedule)(**{**vars(schedule), "score": "cls_attention"})
    assert not smi.invert(model, 6, stopping=by_attention, iterations=9, seed=3, progress=False).kept.equal(
        one.kept
    )


def test_rollout_needs_a_class_token_and_the_others_none(tiny_vit):
    model = tiny_vit(class_token=False, global_pool="avg")
    with pytest.raises(smi.UnsupportedModel, match="needs a class token"):
        smi.invert(
            model, 2, stopping=smi.Stopping((1,), 0.5, "attention_rollout"), iterations=3, progress=False
        )
    for name in ("gradient_norm", "pixel_contrast"):
        images = smi.invert(model, 2, stopping=smi.Stopping((1,), 0.5, name), iterations=3, progress=False)
        assert images.kept.shape == (2, 8)

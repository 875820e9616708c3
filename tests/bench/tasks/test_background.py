"""Kind "background": which patches the model is fed, and what it is asked of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import smi
from bench import models
from bench.tasks import background
from bench.tasks.images import FILE
from smi.vit import adapt, normalisation


def images_of(kept=None, count=3):
    pixels = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    return smi.SyntheticImages(pixels, torch.arange(count) % 5, kept, (4, 4))


@pytest.fixture
def measured(tmp_path, monkeypatch, tiny_vit):
    """A function: images, settings -> the task's metrics, with the model they are of."""
    model = tiny_vit()

    def measured(images, **settings):
        monkeypatch.setattr(models, "load", lambda *_: (model, {}))
        images.save(tmp_path / FILE)
        job = SimpleNamespace(
            task=SimpleNamespace(settings={"share": 0.5, "seed": 0, **settings}),
            inputs={"teacher": tmp_path, "images": tmp_path},
            device="cpu",
        )
        return background.run(job)

    measured.model = model
    return measured


@pytest.mark.parametrize("kept", [None, torch.tensor([[0, 3, 7], [1, 2, 15], [4, 5, 6]])])
def test_background_and_rest_part_the_patches_by_attention_stopped_ones_first(tiny_vit, kept):
    model = tiny_vit()
    tokens = adapt(model)
    mean, std = normalisation(model)
    pictures = (images_of().pixels - mean) / std
    sets = background.patch_sets(tokens, pictures, kept, 6, torch.Generator().manual_seed(0))
    assert sets["whole"] is None and set(sets) == set(background.PARTS)
    attention = tokens.cls_attention(pictures)
    for index in range(3):
        own, rest = set(sets["background"][index].tolist()), set(sets["rest"][index].tolist())
        assert not own & rest and own | rest == set(range(16)) and len(own) == 6
        stopped = set(range(16)) - set(() if kept is None else kept[index].tolist())
        assert own <= stopped
        left = torch.tensor(sorted(stopped - own))
        assert attention[index, sorted(own)].max() <= attention[index, left].min()
    for name in ("background", "chance", "rest"):
        assert (sets[name].diff(dim=1) > 0).all()
    other = background.patch_sets(tokens, pictures, kept, 6, torch.Generator().manual_seed(1))
    assert not other["chance"].equal(sets["chance"]) and other["background"].equal(sets["background"])


def test_the_kept_patches_are_the_last_to_be_background(tiny_vit):
    model, kept = tiny_vit(), torch.tensor([[0, 3, 7], [1, 2, 15], [4, 5, 6]])
    pictures = images_of().pixels
    sets = background.patch_sets(adapt(model), pictures, kept, 13, torch.Generator())
    assert sets["rest"].equal(kept)


def test_probabilities_are_of_the_target_and_the_whole_is_the_models_own_answer(measured):
    images = images_of(count=70)  # more than a batch
    found = measured(images)
    mean, std = normalisation(measured.model)
    with torch.no_grad():
        wanted = measured.model((images.pixels - mean) / std).softmax(1)
    assert found["whole_probability"] == pytest.approx(
        100 * wanted[torch.arange(70), images.targets].mean().item(), rel=1e-4
    )
    assert found["whole_top1"] == pytest.approx(
        100 * (wanted.argmax(1) == images.targets).float().mean().item()
    )
    assert found["background_over_chance"] == found["background_probability"] - found["chance_probability"]
    assert found["patches"] == 8
    assert found == measured(images)
    assert found["chance_probability"] != measured(images, seed=1)["chance_probability"]


def test_of_patches_that_hold_nothing_the_background_says_the_guess(measured):
    """All pictures alike but for the most attended patches: what the background says is the same for each."""
    alike = images_of(count=1).pixels.expand(5, -1, -1, -1).clone()
    images = smi.SyntheticImages(alike, torch.arange(5), None, (4, 4))
    found = measured(images)
    assert found["background_top1"] == pytest.approx(20.0)  # one of five targets is the answer to all
    assert found["background_probability"] == pytest.approx(20.0, rel=1e-5)


@pytest.mark.parametrize(
    ("share", "patches", "wanted"), [(0.01, 64, 1), (0.999, 64, 63), (0.78, 64, 50), (0.765, 196, 150)]
)
def test_a_share_leaves_a_patch_on_either_side(share, patches, wanted):
    assert background.background_patches(share, patches) == wanted

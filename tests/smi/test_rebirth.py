"""Patch Rebirth: what it costs, what calibrates and teaches through its parts, and what it refuses."""

import pytest
import torch
from torch import nn

import smi
from smi import flops

SHORT = smi.recipe("deepinversion", iterations=8, learning_rate=0.1)


@pytest.mark.parametrize(("parts", "share"), [(1, 1.0), (2, 0.375), (4, 0.15625), (7, 4 / 49)])
def test_its_token_iterations_of_a_finished_image_are_the_closed_form(parts, share):
    """(v + 1) / (2 v^2) of dense inversion, for v that divide grid and iterations."""
    schedule = smi.Rebirth(parts).resolved(2800)
    counts = (196, *schedule.kept_counts(196))
    ends = (*schedule.at, 2800)
    tokens = sum(
        count * (end - start) for count, start, end in zip(counts, (0, *schedule.at), ends, strict=True)
    )
    assert tokens / parts / (196 * 2800) == pytest.approx(share)
    assert schedule.shown(196) == 196 // parts and schedule.sparsity(196) == 1 - (196 // parts) / 196


def test_flops_of_a_finished_image_are_those_of_its_stages(tiny_vit):
    model = tiny_vit()  # 16 patches
    by_hand = sum(2 * flops.paper_gflops(model, kept, 1) for kept in (None, 12, 8, 4))
    assert flops.gflops_per_image(model, smi.Rebirth(4), 8) == pytest.approx(by_hand / 4)
    assert flops.gflops_per_image(model, None, 8) == pytest.approx(8 * flops.paper_gflops(model, None, 1))
    stopping = smi.Stopping((2,), 0.5)
    sparse = 2 * flops.paper_gflops(model, None, 1) + 6 * flops.paper_gflops(model, 8, 1)
    assert flops.gflops_per_image(model, stopping, 8) == pytest.approx(sparse)


def test_parts_that_do_not_divide_the_grid_have_equally_many_patches_each(tiny_vit):
    images = smi.invert(tiny_vit(), 10, SHORT, smi.Rebirth(5), seed=1, progress=False)
    assert images.kept.shape == (10, 3)  # 16 patches: the last part would have four
    for trajectory in (0, 1):
        assert images.select(images.trajectory == trajectory).mask().sum(0).max() == 1


def test_targets_are_of_trajectories(tiny_vit):
    images = smi.invert(tiny_vit(), 7, SHORT, smi.Rebirth(4), targets=[3, 1], progress=False)
    assert images.targets.tolist() == [3, 3, 3, 3, 1, 1, 1]


def test_its_images_calibrate_and_teach_through_their_own_patches(tiny_vit):
    """What lies outside an image's patches has no part in either."""
    model = tiny_vit()
    images = smi.invert(model, 8, SHORT, smi.Rebirth(4), seed=1, progress=False)
    noise = torch.rand(images.pixels.shape, generator=torch.Generator().manual_seed(0))
    mask = smi.SyntheticImages(
        torch.ones_like(noise), images.targets, images.kept, images.patch_size
    ).masked()
    other = smi.SyntheticImages(
        torch.where(mask > 0, images.pixels, noise), images.targets, images.kept, images.patch_size
    )
    pictures = torch.rand(4, 3, 16, 16)
    ours, same = (smi.quantize(model, one, 8, 8, progress=False)(pictures) for one in (images, other))
    assert torch.equal(ours, same)
    taught = [
        smi.transfer(model, tiny_vit(seed=2), one, steps=3, batch_size=4, seed=3, progress=False)
        for one in (images, other)
    ]
    assert all(map(torch.equal, *(student.state_dict().values() for student in taught)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: smi.Rebirth(0), "rebirth.parts is 0; allowed: a whole number >= 1"),
        (lambda: smi.Rebirth(2.5), "rebirth.parts is 2.5"),
        (
            lambda: smi.Rebirth(4, at=(2, 4)),
            "rebirth.at has 2 iterations; 4 parts leave at 3, the last at the end",
        ),
        (lambda: smi.Rebirth(3, at=(4, 2)), "rebirth.at is .*; allowed: whole numbers >= 1 that increase"),
        (lambda: smi.Rebirth(score="best"), "unknown score 'best'"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(smi.InvalidSetting, match=message):
        make()


@pytest.mark.parametrize(
    ("stopping", "message"),
    [
        (smi.Rebirth(17), "rebirth.parts is 17, more than the 8 iterations"),
        (smi.Rebirth(3, at=(2, 8)), "the last must come before the end .8 iterations"),
        (smi.Rebirth(17, at=tuple(range(1, 17))), "the last must come before the end"),
    ],
)
def test_one_that_does_not_fit_the_run_is_refused(tiny_vit, stopping, message):
    with pytest.raises(smi.InvalidSetting, match=message):
        smi.invert(tiny_vit(), 4, SHORT, stopping, progress=False)


def test_more_parts_than_patches_are_refused(tiny_vit):
    long = smi.recipe(SHORT, iterations=20)
    with pytest.raises(smi.InvalidSetting, match="rebirth.parts is 17; allowed: 1 to 16, one patch for each"):
        smi.invert(tiny_vit(), 4, long, smi.Rebirth(17), progress=False)


def test_a_student_is_refused(tiny_vit):
    terms = [("cross_entropy", 1.0), ("adaptive", 0.2)]
    recipe = smi.recipe(SHORT, objective=smi.Objective.of(terms), student=tiny_vit(seed=2))
    with pytest.raises(smi.InvalidSetting, match="has a student, which looks at whole images"):
        smi.invert(tiny_vit(), 4, recipe, smi.Rebirth(2), progress=False)


def test_the_published_codes_deviations_are_refused(tiny_vit):
    with pytest.raises(smi.InvalidSetting, match="a Rebirth follows no published code"):
        smi.invert(tiny_vit(), 4, smi.published.recipe(SHORT), smi.Rebirth(2), progress=False)


def test_a_cnn_is_refused():
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(4, 3))
    model.pretrained_cfg = {"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    with pytest.raises(smi.SmiError, match="patch"):
        smi.invert(
            model, 2, smi.recipe("deepinversion_bn", iterations=4, warmup=1), smi.Rebirth(2), progress=False
        )

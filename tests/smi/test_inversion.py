"""smi.invert through its public face: seeds, resumption, what it leaves alone."""

import inspect
import itertools
from dataclasses import replace

import numpy
import pytest
import torch

import smi
from smi import objectives

SHORT = smi.recipe("deepinversion", iterations=12, learning_rate=0.1)
STOPPING = smi.Stopping(at=(3, 6), drop=(0.3, 0.5))  # 16 -> 11 -> 5 patches


def equal(one: smi.SyntheticImages, other: smi.SyntheticImages) -> bool:
    same_kept = (one.kept is None) == (other.kept is None) and (
        one.kept is None or one.kept.equal(other.kept)
    )
    return same_kept and one.pixels.equal(other.pixels) and one.targets.equal(other.targets)


def test_result_is_as_documented(tiny_vit):
    images = smi.invert(tiny_vit(), 3, SHORT, STOPPING, seed=0)
    assert images.pixels.shape == (3, 3, 16, 16) and images.pixels.dtype == torch.float32
    assert images.pixels.min() >= 0 and images.pixels.max() <= 1
    assert images.kept.shape == (3, 5) and images.kept.dtype == torch.int64
    assert images.mask().sum(1).tolist() == [5, 5, 5]
    assert [stage["patches"] for stage in images.made["stages"]] == [16, 11, 5]
    assert [stage["iterations"] for stage in images.made["stages"]] == [3, 3, 6]


def test_inversion_raises_confidence_in_the_targets(tiny_vit):
    model = tiny_vit()
    with torch.no_grad():
        # timm starts heads near zero: nothing to follow
        model.head.weight.normal_(std=1.0, generator=torch.Generator().manual_seed(0))
    still = smi.recipe(SHORT, iterations=60, jitter=0, flip=0)  # random weights know no shift invariance
    images = smi.invert(model, 4, still, seed=0)
    assert images.made["history"]["loss"][-1] < 0.5 * images.made["history"]["loss"][0]


def test_targets_given_are_used(tiny_vit):
    images = smi.invert(tiny_vit(), 4, SHORT, targets=[4, 0, 2, 2])
    assert images.targets.tolist() == [4, 0, 2, 2]


def test_checkpoints_written_on_the_way_resume_too(tiny_vit, tmp_path):
    """Every iteration is saved; the run dies without notice (an exception out of the progress callback)."""
    model, path = tiny_vit(), tmp_path / "state"
    whole = smi.invert(model, 3, SHORT, STOPPING, seed=1)
    calls = iter(range(1000))

    def die():
        if next(calls) >= 8:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        smi.invert(model, 3, SHORT, STOPPING, 1, checkpoint=smi.Checkpoint(path, seconds=0), should_stop=die)
    assert equal(whole, smi.invert(model, 3, SHORT, STOPPING, 1, checkpoint=path))


def test_checkpoint_of_another_run_or_damaged_is_refused(tiny_vit, tmp_path):
    path = tmp_path / "state"
    smi.invert(tiny_vit(), 2, SHORT, seed=0, checkpoint=path)
    with pytest.raises(smi.CheckpointError, match="seed is 0 there, 1 here"):
        smi.invert(tiny_vit(), 2, SHORT, seed=1, checkpoint=path)
    with pytest.raises(smi.CheckpointError, match="weights"):
        smi.invert(tiny_vit(seed=1), 2, SHORT, seed=0, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(smi.CheckpointError, match="damaged"):
        smi.invert(tiny_vit(), 2, SHORT, seed=0, checkpoint=path)


def test_works_where_gradients_are_switched_off(tiny_vit):
    with torch.no_grad():
        images = smi.invert(tiny_vit(), 2, SHORT, seed=0)
    assert equal(images, smi.invert(tiny_vit(), 2, SHORT, seed=0))


def test_a_score_of_ones_own(tiny_vit):
    def top_left(model, image, kept, generator):
        return -kept.float()

    images = smi.invert(tiny_vit(), 2, SHORT, replace(STOPPING, score=top_left))
    assert images.kept.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_least_attention_drops_what_attention_keeps(tiny_vit):
    most, least = (
        smi.invert(tiny_vit(), 2, SHORT, smi.Stopping(at=(3,), drop=0.5, score=score))
        for score in ("cls_attention", "least_attention")
    )
    assert (most.mask() ^ least.mask()).all()


def test_bfloat16_stays_near_float32(tiny_vit):
    """Pixels and Adam stay float32; a few steps of Adam move each pixel by at most a few learning rates."""
    short = smi.recipe(SHORT, iterations=4)
    full, half = (
        smi.invert(tiny_vit(), 2, short, seed=0, execution=smi.Execution(precision=precision))
        for precision in ("fp32", "bf16")
    )
    assert half.pixels.dtype == torch.float32
    assert (full.pixels - half.pixels).abs().mean() < 0.05


def test_progress_counts_all_batches(tiny_vit):
    seen = []
    smi.invert(
        tiny_vit(),
        4,
        SHORT,
        batch_size=2,
        progress=lambda done, total, figures: seen.append((done, total, figures)),
    )
    assert seen[-1][:2] == (24, 24) and "loss" in seen[-1][2]


def test_snapshots_show_the_way(tiny_vit):
    images = smi.invert(tiny_vit(), 2, SHORT, STOPPING, snapshots=(0, 3, 12))
    assert images.made["snapshots"] == [0, 3, 12]
    assert images.traces["snapshot_pixels"].shape == (3, 2, 3, 16, 16)
    assert images.traces["snapshot_pixels"][-1].equal(images.pixels)
    assert images.traces["snapshot_mask"].sum(2).tolist() == [[16, 16], [11, 11], [5, 5]]
    assert images.traces["importance"].isnan().sum(2).tolist() == [[0, 0], [5, 5]]


def test_paper_schedule():
    assert smi.Stopping().kept_counts(196) == (137, 95, 66, 46)
    assert smi.Stopping(at=(50, 100, 200, 300), drop=0.3).sparsity(196) == 1 - 46 / 196


@pytest.fixture
def own_terms():
    """Pairs of terms of one's own that are one function, with gradients laid out differently in memory."""

    @objectives._term(pixels=True)
    def brightness(step):
        return step.image.sum()  # its gradient is one number, expanded

    @objectives._term(pixels=True)
    def brightness_by_hand(step):
        return (step.image * torch.ones_like(step.image)).sum()

    @objectives._term(pixels=True)
    def energy(step):
        return step.image.square().sum()

    @objectives._term(pixels=True)
    def energy_of_channels_last(step):
        return step.image.permute(0, 2, 3, 1).contiguous().square().sum()

    pairs = [("brightness", "brightness_by_hand"), ("energy", "energy_of_channels_last")]
    yield pairs
    for name in itertools.chain(*pairs):
        del objectives.TERMS[name], objectives.NEEDS[name]
        objectives.PIXEL_TERMS.remove(name)


@pytest.mark.parametrize("micro_batch", [None, 1])
@pytest.mark.parametrize("stopping", [None, STOPPING])
def test_the_layout_of_a_terms_gradient_does_not_matter(tiny_vit, own_terms, stopping, micro_batch):
    for pair in own_terms:
        one, other = (
            smi.invert(
                tiny_vit(),
                2,
                smi.Recipe(name="own", objective=[["cross_entropy", 1.0], [term, 1e-3]], iterations=12),
                stopping,
                execution=smi.Execution(micro_batch=micro_batch),
            )
            for term in pair
        )
        torch.testing.assert_close(one.pixels, other.pixels, rtol=0, atol=1e-5)


def test_classes_are_those_of_the_head_that_is_there(tiny_vit):
    model = tiny_vit()
    model.head = torch.nn.Linear(16, 9)
    assert smi.invert(model, 1, SHORT, targets=[8]).targets.tolist() == [8]
    model.head = torch.nn.Linear(16, 2)
    assert smi.invert(model, 16, SHORT).targets.max() < 2


def test_whole_numbers_of_any_kind_are_seeds(tiny_vit, tmp_path):
    images = smi.invert(tiny_vit(), 1, SHORT, seed=numpy.int64(3), checkpoint=tmp_path / "state")
    assert equal(images, smi.invert(tiny_vit(), 1, SHORT, seed=3))
    images.save(tmp_path / "images.safetensors")


def test_a_callers_autocast_is_not_the_inversions(tiny_vit):
    plain = smi.invert(tiny_vit(), 2, SHORT, STOPPING)
    with torch.autocast("cpu", torch.bfloat16):
        assert equal(smi.invert(tiny_vit(), 2, SHORT, STOPPING), plain)
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_scores_are_ranked_in_their_own_precision(tiny_vit, dtype):
    def later_is_better(model, image, kept, generator):
        return (2**40 + kept).to(dtype)  # float32 cannot tell these apart

    images = smi.invert(tiny_vit(), 1, SHORT, smi.Stopping((3,), 0.5, later_is_better))
    assert images.kept.tolist() == [list(range(8, 16))]


def test_a_score_cannot_change_the_image(tiny_vit):
    def vandal(model, image, kept, generator):
        image.zero_()
        return kept.float()

    def honest(model, image, kept, generator):
        return kept.float()

    one, other = (
        smi.invert(tiny_vit(), 1, SHORT, replace(STOPPING, score=score)) for score in (vandal, honest)
    )
    assert one.pixels.equal(other.pixels)


def test_a_checkpoint_knows_normalisation_heads_and_score(tiny_vit, tmp_path):
    model, settings = tiny_vit(), {"checkpoint": tmp_path / "state"}
    smi.invert(model, 1, SHORT, **settings)
    other = tiny_vit()
    other.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.3, 0.3, 0.3)}
    for changed in (other, tiny_vit(num_heads=4)):
        with pytest.raises(smi.CheckpointError, match="belongs to another run"):
            smi.invert(changed, 1, SHORT, **settings)
    with pytest.raises(smi.InvalidSetting, match="the score has no name"):
        nameless = replace(STOPPING, score=lambda *_: None)
        smi.invert(model, 1, SHORT, nameless, checkpoint=tmp_path / "other")


@pytest.mark.parametrize("saved", [True, False])
def test_interrupted_says_whether_the_state_is_saved(tiny_vit, tmp_path, saved):
    checkpoint = tmp_path / "state" if saved else None
    with pytest.raises(smi.Interrupted) as caught:
        smi.invert(tiny_vit(), 1, SHORT, checkpoint=checkpoint, should_stop=lambda: True)
    assert ("saved" in str(caught.value)) == saved


@pytest.mark.parametrize("function", [smi.invert, smi.distil])
def test_settings_travel_as_values(function):
    """Execution, checkpoint and recipe are values of their own; a parameter more belongs into one of them."""
    assert len(inspect.signature(function).parameters) <= 14

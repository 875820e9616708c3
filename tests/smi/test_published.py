"""The published code's deviations: named, off by default, each doing what it says. Agreement is in tests/golden."""

import pytest
import timm
import torch

import smi
from smi import published
from smi.errors import InvalidSetting
from smi.geometry import Jitter
from smi.state import InversionConfig, State
from smi.vit import adapt


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=5
    )


STOPPING = smi.Stopping(at=(3, 6), drop=(0.3, 0.4))  # 16 -> 11 -> 6


def run(model, *names, **options):
    options = {"count": 3, "stopping": STOPPING, "seed": 1} | options
    return smi.invert(model, recipe=published.recipe("deepinversion", names, iterations=10), **options)


@pytest.mark.parametrize("name", sorted(published.OF_INVERSION))
def test_each_changes_the_images_and_is_written_down(model, name):
    plain, other = run(model), run(model, name)
    assert plain.made["deviations"] == [] and other.made["deviations"] == [name]
    changed = not torch.equal(plain.pixels, other.pixels) or not torch.equal(plain.kept, other.kept)
    assert changed


def test_stopped_pixels_move_only_where_asked(model):
    for names, moves in (((), False), (("whole_image_tv",), True)):
        images = run(model, *names, snapshots=(6, 10))
        before, after = images.traces["snapshot_pixels"]
        inside = images.mask().view(3, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
        assert torch.equal(before[~inside.expand_as(before)], after[~inside.expand_as(after)]) is not moves


def test_iterations_beside_a_stop_are_not_jittered_where_attention_is_an_earlier_one(model):
    """And those between are jittered as without the deviation."""

    def draws(*names):
        adapted = adapt(model)
        config = InversionConfig(published.recipe("deepinversion", names, iterations=10, flip=1.0), STOPPING)
        passes = smi.Execution().passes(adapted, config.recipe.objective.needs)
        loop = published.loop_of(adapted, config, passes)
        state = State.start(adapted, config, 2, None, (1, 2), torch.device("cpu"))
        found = []
        for state.iteration in range(10):
            found.append(loop.draw_jitter(state))
        return found

    plain, without = draws(), draws("earlier_attention")
    assert all(jitter.flip for jitter in plain)
    assert without == [Jitter() if t in (2, 3, 5, 6) else plain[t] for t in range(10)]


def test_the_final_mask_holds_one_patch_more_where_products_round_so(model):
    images = run(model, "final_mask_anew")
    assert images.kept.shape[1] == int(17 * 0.7 * 0.6)
    assert (images.kept.diff(dim=1) > 0).all()
    assert run(model, "final_mask_anew", stopping=None).kept is None


def test_deit_keeps_47_patches_by_the_code_and_46_by_the_text(model):
    class Sized:
        num_patches = 196

    stopping = smi.Stopping()
    assert stopping.kept_counts(196)[-1] == 46
    pixels, targets = torch.rand(1, 3, 224, 224), torch.zeros(1, dtype=torch.long)
    sized = Sized()
    sized.model = model
    sized.cls_attention = lambda image: torch.rand(1, 196)
    images = smi.SyntheticImages(pixels, targets, torch.arange(46).unsqueeze(0), (16, 16))
    assert published.final_mask(images, sized, stopping).shape == (1, 47)


def test_eight_bits_are_cut_off(model):
    plain, stored = run(model, stopping=None), run(model, "eight_bit", stopping=None)
    levels = stored.pixels * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    assert (stored.pixels <= plain.pixels).all() and (plain.pixels - stored.pixels < 1 / 255).all()


def test_zero_pixels_stay_zero_under_keep_zero():
    pixels, mean, std = (
        torch.tensor([[[[0.0, 0.5]]]]),
        torch.full((1, 1, 1, 1), 0.5),
        torch.full((1, 1, 1, 1), 0.25),
    )
    assert published.normalise(pixels, mean, std).tolist() == [[[[-2.0, 0.0]]]]
    assert published.normalise(pixels, mean, std, keep_zero=True).tolist() == [[[[0.0, 0.0]]]]


def test_calibration_deviations_move_the_stem_alone(model):
    images = run(model)
    ranges = {
        names: {n: (q.low.item(), q.high.item()) for n, q in quantized.activation_quantizers()}
        for names in ((), ("whole_stem",), ("whole_stem", "keep_zero"))
        for quantized in [smi.quantize(model, images, 4, 8, deviations=names)]
    }
    whole, black = ranges["whole_stem",], ranges["whole_stem", "keep_zero"]
    assert whole["quantizers.patches"] != ranges[()]["quantizers.patches"]
    assert black["quantizers.patches"] != whole["quantizers.patches"]
    moved = {name for name in whole if whole[name] != pytest.approx(ranges[()][name], rel=1e-4, abs=1e-5)}
    assert all(name.startswith("quantizers.") for name in moved)


@pytest.mark.parametrize("stop_after", [2, 3, 5, 7])
def test_a_run_with_deviations_resumes_to_the_same_bits(model, tmp_path, stop_after):
    names = tuple(published.OF_INVERSION)
    whole = run(model, *names)
    asked = iter(range(100))
    path = tmp_path / "state"
    with pytest.raises(smi.Interrupted):
        run(model, *names, checkpoint=path, should_stop=lambda: next(asked) >= stop_after)
    resumed = run(model, *names, checkpoint=path)
    assert torch.equal(whole.pixels, resumed.pixels) and torch.equal(whole.kept, resumed.kept)
    with pytest.raises(smi.CheckpointError, match="deviations"):
        run(model, checkpoint=path)


def test_unknown_names_are_refused_with_those_there_are(model):
    with pytest.raises(InvalidSetting, match="unknown deviation 'tv'; allowed: earlier_attention, eight_bit"):
        run(model, "tv")
    with pytest.raises(InvalidSetting, match="unknown deviation 'eight_bit'; allowed: keep_zero, whole_stem"):
        smi.quantize(model, run(model), deviations=("eight_bit",))


def test_a_published_recipe_has_all_deviations_or_those_named():
    everything = published.recipe("deepinversion", iterations=10)
    assert published.deviations_of(everything) == sorted(published.OF_INVERSION)
    one = published.recipe(everything, ["eight_bit"])
    assert published.deviations_of(one) == ["eight_bit"] and one.iterations == 10
    assert published.deviations_of(smi.recipe(one, iterations=5)) == ["eight_bit"]
    assert published.deviations_of(smi.recipe("deepinversion")) == []
    assert one.to_json() == smi.recipe("deepinversion", iterations=10).to_json()


def test_without_deviations_the_loop_is_the_texts(model):
    assert run(model).pixels.equal(
        smi.invert(
            model,
            3,
            smi.recipe("deepinversion", iterations=10),
            STOPPING,
            seed=1,
        ).pixels
    )

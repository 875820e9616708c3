"""Whole inversions agree with the published code: dense, and sparse with its deviations switched on."""

from dataclasses import dataclass

import pytest
import torch
from torch.testing import assert_close

from smi import published
from smi.execution import Passes
from smi.geometry import Jitter
from smi.images import SyntheticImages
from smi.objectives import Objective
from smi.state import InversionConfig, State
from smi.stopping import Stopping
from smi.total_variation import tv_l2
from smi.vit import adapt, frozen

OF_THE_LOOP = frozenset({"whole_image_tv", "earlier_attention"})


@dataclass(frozen=True)
class Recorded(published.PublishedRecipe):
    """A recipe with recorded jitter; None where the published code did not jitter and drew nothing."""

    draws: tuple = ()

    def draw_jitter(self, iteration, height, width, generator):
        rows, columns, flip = self.draws[iteration] or (0, 0, 0)
        return Jitter(rows, columns, bool(flip))


def replay(golden, model, switches: frozenset[str]):
    """Run the loop from the recorded noise; (state, cross-entropies, TVs, images before every iteration)."""
    stops = [t for t in golden["prune_iterations"].tolist() if t > 0]
    ratios = golden["prune_ratios"].tolist()
    length = len(golden["cross_entropy"])
    still = {t - 1 for t in stops} | set(stops)
    recorded = iter(golden["jitter_rows_cols_flip"].tolist())
    recipe = Recorded(
        name="recorded",
        objective=Objective.of([("cross_entropy", 1.0), ("tv_l2", 1e-4)]),
        iterations=length,
        learning_rate=0.25,
        betas=(0.5, 0.99),
        deviations=tuple(switches),
        draws=tuple(None if t in still else tuple(next(recorded)) for t in range(length)),
    )
    assert next(recorded, None) is None
    stopping = Stopping(at=tuple(stops), drop=tuple(ratios)) if stops else None
    config = InversionConfig(recipe, stopping, snapshots=tuple(range(length + 1)))
    image = golden["init"].clone()
    state = State(
        image=image,
        targets=golden["targets"],
        optimizer=torch.optim.Adam([image], lr=0.25, betas=(0.5, 0.99)),
        losses=torch.zeros(length),
        jitter_generator=torch.Generator(),
        score_generator=torch.Generator(),
        chance=0.0,
    )
    with frozen(model):
        nothing, never = (lambda *_: None), (lambda: False)
        loop = published.loop_of(adapt(model), config, Passes(adapt(model)))
        loop.run(state, never, nothing, nothing, never)
    images = [state.traces.snapshots[t] for t in range(length + 1)]
    tv = torch.stack([tv_l2(image) for image in images[:-1]])
    return state, state.losses - 1e-4 * tv, tv, images


def in_0_1(image):
    return (image * 0.25 + 0.5).clamp(0, 1)


def test_dense_trajectory_whole(vectors, golden_model):
    golden = vectors("trajectory_dense")
    state, cross_entropy, tv, _ = replay(golden, golden_model, frozenset())
    assert_close(cross_entropy.double(), golden["cross_entropy"], rtol=0, atol=2e-5)
    assert_close(tv.double(), golden["tv_l2"], rtol=1e-6, atol=0)
    assert_close(in_0_1(state.image), golden["final_images_in_0_1"], rtol=0, atol=1e-4)


def test_sparse_trajectory_by_the_text_up_to_the_first_stop(vectors, golden_model):
    golden = vectors("trajectory_sparse")
    first = golden["prune_iterations"][0].item()
    _, cross_entropy, tv, _ = replay(golden, golden_model, frozenset())
    assert_close(cross_entropy[:first].double(), golden["cross_entropy"][:first], rtol=0, atol=2e-5)
    assert_close(tv[: first + 1].double(), golden["tv_l2"][: first + 1], rtol=1e-6, atol=0)


def test_sparse_trajectory_whole_with_the_published_deviations(vectors, golden_model):
    golden = vectors("trajectory_sparse")
    state, cross_entropy, tv, _ = replay(golden, golden_model, OF_THE_LOOP)
    assert_close(cross_entropy.double(), golden["cross_entropy"], rtol=0, atol=2e-5)
    assert_close(tv.double(), golden["tv_l2"], rtol=1e-6, atol=0)
    assert_close(in_0_1(state.image), golden["final_images_in_0_1"], rtol=0, atol=1e-4)


def test_published_choice_at_every_stop(vectors, golden_model):
    golden = vectors("trajectory_sparse")
    state, *_ = replay(golden, golden_model, OF_THE_LOOP)
    patches = adapt(golden_model).num_patches
    kept = torch.arange(patches).expand(len(state.image), patches)
    for stop in range(len(golden["prune_iterations"])):
        chosen = golden[f"topk_relative_with_cls_{stop}"][:, 1:] - 1  # positions in the order recorded before
        kept = kept.gather(1, chosen)
        ranked = state.traces.importance[stop].nan_to_num(-1).topk(chosen.shape[1], dim=1).indices
        assert torch.equal(ranked.sort(dim=1).values, kept.sort(dim=1).values)
    assert torch.equal(state.kept, kept.sort(dim=1).values)


def test_published_final_mask(vectors, golden_model):
    golden = vectors("trajectory_sparse")
    wanted = golden[f"topk_relative_with_cls_{len(golden['prune_iterations'])}"][:, 1:] - 1
    state, *_ = replay(golden, golden_model, OF_THE_LOOP)
    tokens = adapt(golden_model)
    images = SyntheticImages(in_0_1(state.image), state.targets, state.kept, tokens.patch_size)
    stopping = Stopping(
        at=tuple(golden["prune_iterations"].tolist()), drop=tuple(golden["prune_ratios"].tolist())
    )
    ours = published.final_mask(images, tokens, stopping)
    assert torch.equal(ours, wanted.sort(dim=1).values)


@pytest.mark.parametrize("left_out", sorted(OF_THE_LOOP))
def test_every_deviation_of_the_loop_is_needed(vectors, golden_model, left_out):
    golden = vectors("trajectory_sparse")
    with_all, without = (
        replay(golden, golden_model, on)[0] for on in (OF_THE_LOOP, OF_THE_LOOP - {left_out})
    )
    if left_out == "earlier_attention":  # which patches it chooses may be the same by chance
        assert not torch.allclose(
            with_all.traces.importance[0], without.traces.importance[0], rtol=1e-3, atol=0
        )
    else:
        assert (in_0_1(without.image) - golden["final_images_in_0_1"]).abs().max() > 1e-2


def test_by_the_text_stopped_pixels_never_move_again(vectors, golden_model):
    golden = vectors("trajectory_sparse")
    for switches, moves in ((frozenset(), False), (OF_THE_LOOP, True)):
        state, _, _, images = replay(golden, golden_model, switches)
        last = golden["prune_iterations"][-1].item()
        side = golden_model.patch_embed.patch_size
        stopped = ~state.traces.masks[last].view(len(state.image), *golden_model.patch_embed.grid_size)
        stopped = stopped.repeat_interleave(side[0], 1).repeat_interleave(side[1], 2).unsqueeze(1)
        moved = (images[-1] != images[last]) & stopped
        assert moved.any().item() is moves

"""Laws of what is drawn at random: noise, scores, jitter, and chances; and of the figures kept of it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
from hypothesis import assume
from hypothesis import strategies as st

import smi
from laws.core import law, seeds
from laws.inverting import Run, runs
from laws.transferring import Teaching, teachings
from smi import geometry, objectives
from smi.pool import Pool
from smi.vit import adapt


def in_batches(run: Run, **changes) -> Run:
    return replace(run, count=3, batch_size=1, precision="fp32", **changes)


@law(runs(), examples=8)
def each_image_has_noise_of_its_own(run):
    noise = in_batches(run).invert(snapshots=(0,)).traces["snapshot_pixels"][0]
    assert len({image.numpy().tobytes() for image in noise}) == 3


@law(runs(), examples=10)
def random_scores_are_drawn_anew_at_each_stop(run):
    assume(len(run.at) > 1 and run.counts()[0] >= 4)
    importance = in_batches(run, score="random").invert().traces["importance"]
    for earlier, later in itertools.pairwise(importance):
        for one, other in zip(earlier, later, strict=True):
            still_in = ~other.isnan()
            drawn_before = one[~one.isnan()][: int(still_in.sum())]  # in the order of the draw
            assert not torch.equal(drawn_before, other[still_in])


@dataclass(frozen=True)
class Drawing:
    flip: float
    jitter: float
    seed: int


@law(st.builds(Drawing, st.sampled_from([0.0, 0.1, 0.9, 1.0]), st.floats(0, 0.5), seeds), examples=20)
def jitter_is_drawn_within_its_limits_and_mirrors_as_often_as_it_says(case):
    recipe = smi.recipe("deepinversion", flip=case.flip, jitter=case.jitter)
    generator = torch.Generator().manual_seed(case.seed)
    drawn = [recipe.draw_jitter(t, 32, 16, generator) for t in range(200)]
    assert abs(sum(one.flip for one in drawn) / 200 - case.flip) < 0.15
    for name, side in (("rows", 32), ("columns", 16)):
        limit, found = int(side * case.jitter + 1e-9), [getattr(one, name) for one in drawn]
        assert max(found) <= limit and min(found) >= -limit
        assert limit == 0 or len({*found}) > 1


@law(runs(), examples=8)
def the_history_is_the_mean_of_its_batches(run):
    """The last loss of each batch is that of its image one iteration before the end."""
    model = run.model.make()
    plain = smi.Recipe(name="own", objective=[["cross_entropy", 1.0]], iterations=3, jitter=0, flip=0)
    images = in_batches(run).invert(model, recipe=plain, stopping=None, snapshots=(2,))
    with torch.no_grad():
        logits = model((images.traces["snapshot_pixels"][0] - 0.5) / 0.25)
    wanted = float(torch.nn.functional.cross_entropy(logits, images.targets))
    assert abs(images.made["history"]["loss"][2] - wanted) <= 1e-3 * max(1, abs(wanted))


@law(runs(), examples=5)
def a_term_gets_the_chance_of_its_batch(run):
    seen = []

    def noted(step):
        seen.append(step.chance)
        return step.logits.sum() * step.chance

    objectives.TERMS["noted"], objectives.NEEDS["noted"] = noted, frozenset()
    try:
        recipe = smi.Recipe(name="own", objective=[["noted", 1.0]], iterations=2)
        in_batches(run).invert(recipe=recipe, stopping=None)
    finally:
        del objectives.TERMS["noted"], objectives.NEEDS["noted"]
    assert len(seen) == 6 and len({*seen}) == 3 and all(0 < chance < 1 for chance in seen)


@law(teachings(), examples=20)
def a_pools_kept_sets_move_with_their_images(case: Teaching):
    """Each image's patches hold their own index; after the draw, by whole patches, kept cells still hold the kept."""
    model = case.teacher.make()
    grid = adapt(model).grid
    numbers = torch.arange(grid.patches, dtype=torch.float32) / grid.patches
    size = model.patch_embed.proj.in_channels * grid.patch_height * grid.patch_width
    pixels = geometry.unpatchify(numbers.view(1, -1, 1).expand(2, -1, size), grid)
    kept = case.teacher.kept()
    images = smi.SyntheticImages(pixels, torch.zeros(2, dtype=torch.int64), kept, case.teacher.patch)
    pool = Pool(images, grid, model.patch_embed.proj.in_channels, 4)
    generator = torch.Generator().manual_seed(case.seed)
    drawn, moved = pool.draw(0, 2, 1.0, 0.0, generator)
    found = geometry.take_patches(drawn, moved, grid)[:, :, 0] * grid.patches
    rows = {tuple(row) for row in kept.tolist()}
    assert all(tuple(sorted(row.round().long().tolist())) in rows for row in found)

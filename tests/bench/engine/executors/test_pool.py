"""The pool of a transfer, for any grid, kept set and seed: flips keep patches and places together, draws are fair."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smi.geometry import PatchGrid, take_patches
from smi.images import SyntheticImages
from smi.pool import Pool

grids = st.builds(PatchGrid, *[st.integers(1, 5)] * 2, *[st.integers(1, 4)] * 2)
seeds = st.integers(0, 2**31)


def make_set(grid, count, kept, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randperm(grid.patches, generator=generator)[:kept].sort().values for _ in range(count)]
    return SyntheticImages(
        torch.rand(count, 2, grid.height, grid.width, generator=generator),
        torch.zeros(count, dtype=torch.int64),
        None if kept is None else torch.stack(rows),
        (grid.patch_height, grid.patch_width),
    )


@settings(max_examples=60, deadline=None)
@given(grids, st.integers(1, 6), st.integers(1, 25), st.booleans(), seeds)
def test_a_mirrored_image_shows_the_same_patches_mirrored(grid, count, kept, dense, seed):
    kept = None if dense else min(kept, grid.patches)
    one = make_set(grid, count, kept, seed)
    pool = Pool(one, grid, channels=2, classes=1)
    drawn = [pool.draw(0, count, flip, 0.0, torch.Generator().manual_seed(seed)) for flip in (0.0, 1.0)]
    (plain, plain_kept), (mirrored, mirrored_kept) = drawn
    assert mirrored.equal(plain.flip(3))
    if kept is None:
        assert plain_kept is None and mirrored_kept is None
        return
    assert all(len(set(row)) == kept for row in mirrored_kept.tolist())
    shape = (count, kept, 2, grid.patch_height, grid.patch_width)
    before = take_patches(plain, plain_kept, grid).reshape(shape)
    after = take_patches(mirrored, mirrored_kept, grid).reshape(shape)
    assert after.equal(before.flip(4)), "token k is still the same patch, mirrored"
    columns = [where % grid.columns for where in (plain_kept, mirrored_kept)]
    assert (columns[0] + columns[1] == grid.columns - 1).all()
    assert (plain_kept // grid.columns).equal(mirrored_kept // grid.columns)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(1, 40), seeds)
def test_a_draw_holds_different_images_of_the_rounds_so_far(counts, batch, seed):
    grid = PatchGrid(2, 2, 2, 2)
    sets = [make_set(grid, count, 2, seed + index) for index, count in enumerate(counts)]
    pool = Pool(sets, grid, channels=2, classes=1, rounds=len(sets))
    for round_ in range(len(sets)):
        there = torch.cat([one.pixels for one in sets[: round_ + 1]])
        keeps = torch.cat([one.kept for one in sets[: round_ + 1]])
        assert pool.size(round_) == len(there)
        pixels, kept = pool.draw(round_, batch, 0.0, 0.0, torch.Generator().manual_seed(seed))
        assert len(pixels) == min(batch, len(there))
        found = [[i for i in range(len(there)) if there[i].equal(image)] for image in pixels]
        places = [where[0] for where in found]
        assert len(set(places)) == len(places)
        assert kept.equal(keeps[places])


@settings(max_examples=40, deadline=None)
@given(grids, st.integers(1, 25), st.integers(1, 5), seeds)
def test_random_patches_are_drawn_anew_each_time(grid, patches, count, seed):
    patches = min(patches, grid.patches)
    one = make_set(grid, count, None, seed)
    pool = Pool(one, grid, channels=2, classes=1, patches=patches)
    draws = [pool.draw(0, count, 0.0, 0.0, torch.Generator().manual_seed(s)) for s in range(20)]
    for pixels, kept in draws:
        assert kept.shape == (count, patches) and pixels.shape == one.pixels.shape
        assert (kept.diff(dim=1) > 0).all() and kept.min() >= 0 and kept.max() < grid.patches
    if patches < grid.patches:
        assert any(not kept.equal(draws[0][1]) for _, kept in draws)


@settings(max_examples=60, deadline=None)
@given(grids, st.integers(1, 4), st.integers(1, 25), st.integers(0, 4), seeds)
def test_rolled_by_whole_patches_the_same_patches_are_shown(grid, count, kept, patches, seed):
    """Jitter drawn for images whose patches are single pixels is always by whole patches."""
    grid = PatchGrid(grid.rows, grid.columns, 1, 1)
    kept = min(kept, grid.patches)
    one = make_set(grid, count, kept, seed)
    pool = Pool(one, grid, channels=2, classes=1)
    fraction = patches / 4
    plain, plain_kept = pool.draw(0, count, 0.0, 0.0, torch.Generator().manual_seed(seed))
    rolled, rolled_kept = pool.draw(0, count, 0.0, fraction, torch.Generator().manual_seed(seed))
    assert all(len(set(row)) == kept for row in rolled_kept.tolist())
    assert take_patches(rolled, rolled_kept, grid).equal(take_patches(plain, plain_kept, grid))

"""Laws of the patch grid, of jitter and of the schedule by which patches stop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

import smi
from laws.core import law, same, seeds
from smi import geometry, stopping


@dataclass(frozen=True)
class Placed:
    """A patch grid with kept patches and one draw of jitter."""

    rows: int
    columns: int
    patch: tuple[int, int]
    channels: int
    share: float
    jitter: tuple[int, int, bool]
    dtype: torch.dtype
    seed: int

    @property
    def grid(self):
        return geometry.PatchGrid(self.rows, self.columns, *self.patch)

    @property
    def image(self):
        generator = torch.Generator().manual_seed(self.seed)
        grid = self.grid
        return torch.randn(2, self.channels, grid.height, grid.width, generator=generator).to(self.dtype)

    @property
    def kept(self):
        generator = torch.Generator().manual_seed(self.seed + 1)
        count = max(1, round(self.share * self.grid.patches))
        return torch.rand(2, self.grid.patches, generator=generator).argsort(1)[:, :count].sort(1).values


dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float64])
placed = st.builds(
    Placed,
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    patch=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels=st.integers(1, 3),
    share=st.floats(0, 1),
    jitter=st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.booleans()),
    dtype=dtypes,
    seed=seeds,
)


@law(placed)
def patchify_and_back_is_the_image(case):
    grid, image = case.grid, case.image
    patches = geometry.patchify(image, grid)
    assert patches.shape == (2, grid.patches, case.channels * case.patch[0] * case.patch[1])
    assert same(geometry.unpatchify(patches, grid), image)


@law(placed)
def a_patch_is_its_pixels_channel_row_column(case):
    grid, image = case.grid, case.image
    patches = geometry.patchify(image, grid)
    for index in range(grid.patches):
        top, left = index // grid.columns * grid.patch_height, index % grid.columns * grid.patch_width
        block = image[:, :, top : top + grid.patch_height, left : left + grid.patch_width]
        assert same(patches[:, index], block.flatten(1))


@law(placed)
def taking_is_choosing_among_all_patches(case):
    grid, kept = case.grid, case.kept
    image = case.image.requires_grad_()
    taken = geometry.take_patches(image, kept, grid)
    assert same(taken, geometry.patchify(image, grid).take_along_dim(kept.unsqueeze(2), 1))
    flat = image.flatten(1).gather(1, geometry.pixel_index(kept, grid, case.channels))
    assert same(flat, taken.flatten(1))
    weights = torch.randn(taken.shape, generator=torch.Generator().manual_seed(case.seed)).to(case.dtype)
    (gradient,) = torch.autograd.grad((taken * weights).sum(), image)
    wanted = torch.zeros_like(geometry.patchify(image, grid))
    wanted.scatter_(1, kept.unsqueeze(2).expand_as(weights), weights)
    assert same(gradient, geometry.unpatchify(wanted, grid))


@law(placed)
def putting_writes_the_kept_patches_and_nothing_else(case):
    grid, kept, image = case.grid, case.kept, case.image
    before = geometry.patchify(image, grid)
    new = torch.randn(2, kept.shape[1], before.shape[2]).to(case.dtype)
    geometry.put_patches(image, kept, new, grid)
    after = geometry.patchify(image, grid)
    assert same(after.take_along_dim(kept.unsqueeze(2), 1), new)
    mask = geometry.kept_mask(kept, grid.patches)
    assert mask.sum(1).tolist() == [kept.shape[1]] * 2
    assert same(after[~mask], before[~mask])


@law(placed)
def jitter_undone_is_the_image(case):
    jitter, image = geometry.Jitter(*case.jitter), case.image
    assert same(jitter.undo(jitter.apply(image)), image)
    assert same(jitter.apply(jitter.undo(image)), image)


@law(placed)
def jitter_rolls_then_mirrors(case):
    rows, columns, flip = case.jitter
    grid, image = case.grid, case.image
    moved = geometry.Jitter(rows, columns, flip).apply(image)
    for y in range(grid.height):
        for x in range(grid.width):
            new_y, new_x = (y + rows) % grid.height, (x + columns) % grid.width
            new_x = grid.width - 1 - new_x if flip else new_x
            assert same(moved[:, :, new_y, new_x], image[:, :, y, x])


@law(placed, examples=100)
def remapped_patches_stay_unique_and_in_range(case):
    cells = geometry.Jitter(*case.jitter).remap(case.kept, case.grid)
    assert cells.shape == case.kept.shape and cells.dtype == torch.int64
    assert cells.min() >= 0 and cells.max() < case.grid.patches
    assert all(len(set(row)) == len(row) for row in cells.tolist())


@law(placed, examples=100)
def a_kept_patch_lands_on_the_nearest_cell_halves_up(case):
    rows, columns, flip = case.jitter
    grid = case.grid
    cells = geometry.Jitter(rows, columns, flip).remap(case.kept, grid)

    def nearest(start: int, offset: int, size: int, cells: int) -> int:
        moved = start * size + offset  # upper or left edge in pixels, before wrapping
        low = moved // size
        return (low + (2 * (moved - low * size) >= size)) % cells

    for row, new_row in zip(case.kept.tolist(), cells.tolist(), strict=True):
        for patch, cell in zip(row, new_row, strict=True):
            y = nearest(patch // grid.columns, rows, grid.patch_height, grid.rows)
            x = nearest(patch % grid.columns, columns, grid.patch_width, grid.columns)
            x = grid.columns - 1 - x if flip else x
            assert cell == y * grid.columns + x


@law(placed)
def jitter_by_whole_patches_is_exact(case):
    grid, image, kept = case.grid, case.image, case.kept
    rows, columns, flip = case.jitter
    jitter = geometry.Jitter(rows * grid.patch_height, columns * grid.patch_width, flip)
    there = geometry.take_patches(jitter.apply(image), jitter.remap(kept, grid), grid)
    here = geometry.take_patches(image, kept, grid)
    shape = (2, kept.shape[1], case.channels, grid.patch_height, grid.patch_width)
    here = here.view(shape)
    assert same(there.view(shape), here.flip(4) if flip else here)


@law(placed)
def pixels_gathered_from_the_stored_image_are_those_of_the_jittered_one(case):
    jitter, grid = geometry.Jitter(*case.jitter), case.grid
    index = jitter.pixel_index(case.kept, grid, case.channels)
    gathered = case.image.flatten(1).gather(1, index)
    rolled = geometry.take_patches(jitter.apply(case.image), jitter.remap(case.kept, grid), grid)
    assert same(gathered, rolled.flatten(1))
    assert all(len(set(row)) == len(row) for row in index.tolist())


# ---- stopping

fractions = st.floats(0.01, 0.9)


@law(st.tuples(st.integers(1, 1024), st.lists(fractions, min_size=1, max_size=5)), examples=200)
def kept_counts_cut_down_fraction_by_fraction(case):
    patches, drops = case
    schedule = smi.Stopping(at=tuple(range(1, len(drops) + 1)), drop=tuple(drops))
    counts, left = [], patches
    for fraction in drops:
        left = int(left * (1 - fraction) + 1e-9)
        counts.append(left)
    if left < 1:
        try:
            schedule.kept_counts(patches)
        except smi.InvalidSetting:
            return
        raise AssertionError("a schedule that leaves no patch was accepted")
    assert schedule.kept_counts(patches) == tuple(counts)
    assert all(later <= earlier for earlier, later in zip((patches, *counts), counts, strict=False))
    assert schedule.sparsity(patches) == 1 - counts[-1] / patches
    assert schedule.count_at(0, patches) == patches and schedule.count_at(10**6, patches) == counts[-1]


@law(st.tuples(st.integers(1, 30), st.floats(0, 1), st.booleans(), seeds), examples=100)
def ranking_keeps_the_most_important(case):
    patches, share, with_ties, seed = case
    generator = torch.Generator().manual_seed(seed)
    all_patches = torch.rand(3, 2 * patches, generator=generator).argsort(1)[:, :patches].sort(1).values
    importance = torch.rand(3, patches, generator=generator)
    importance = (importance * 3).round() if with_ties else importance
    count = max(1, round(share * patches))
    kept, positions = stopping.most_important(all_patches, importance, count)
    assert kept.shape == (3, count) and same(kept, all_patches.gather(1, positions))
    assert (kept.diff(dim=1) > 0).all()  # sorted, none twice
    for row in range(3):
        stays = set(positions[row].tolist())
        ranked = sorted(
            range(patches), key=lambda p, row=row: (-importance[row, p].item(), p)
        )  # ties: lower index
        assert stays == set(ranked[:count])

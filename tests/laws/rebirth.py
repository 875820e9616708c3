"""Laws of Patch Rebirth: what leaves a running inversion, when, and what it is."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hypothesis import assume
from hypothesis import strategies as st

import smi
from laws.adapter import Sized, sized
from laws.core import Fault, law, same, seeds
from laws.inverting import resumed, stopped_pixels
from smi import images as of_images
from smi import inversion, rebirth, state, stopping


@dataclass(frozen=True)
class Reborn:
    """A small inversion of whole trajectories, and one in which they are cut short by `count`."""

    model: Sized
    iterations: int
    parts: int
    at: tuple[int, ...] | None
    score: str
    recipe: str
    missing: int
    batch_size: int
    micro_batch: int | None
    stop_after: int
    seed: int

    @property
    def count(self) -> int:
        return 3 * self.parts - self.missing  # of three trajectories

    def settings(self, **changes) -> dict[str, Any]:
        recipes = {
            "deepinversion": smi.recipe("deepinversion", iterations=self.iterations, jitter=1 / 2),
            "psaq": smi.recipe("psaq", iterations=self.iterations, rounds=1, jitter=1 / 2, warmup=1),
        }
        micro_batch = (
            self.micro_batch if self.recipe == "deepinversion" else None
        )  # PSAQ's loss couples images
        chosen = {
            "count": self.count,
            "recipe": recipes[self.recipe],
            "stopping": smi.Rebirth(self.parts, self.at, self.score),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "execution": smi.Execution(micro_batch=micro_batch),
            "progress": False,
        }
        return chosen | changes

    def invert(self, model=None, **changes) -> smi.SyntheticImages:
        return smi.invert(self.model.make() if model is None else model, **self.settings(**changes))

    @property
    def leaves_at(self) -> tuple[int, ...]:
        step = self.iterations // self.parts
        return tuple(k * step for k in range(1, self.parts)) if self.at is None else self.at


@st.composite
def reborn(draw) -> Reborn:
    model = draw(sized)
    iterations = draw(st.integers(4, 8))
    parts = draw(st.integers(1, min(4, model.patches)))
    at = tuple(sorted(draw(st.permutations(range(1, iterations)))[: parts - 1]))
    return Reborn(
        model=model,
        iterations=iterations,
        parts=parts,
        at=draw(st.sampled_from([None, at])),
        score=draw(st.sampled_from(sorted(smi.SCORES))),
        recipe=draw(st.sampled_from(["deepinversion", "deepinversion", "psaq"])),
        missing=draw(st.integers(0, parts - 1)),
        batch_size=draw(st.integers(1, 3)),
        micro_batch=draw(st.sampled_from([None, 1])),
        stop_after=draw(st.integers(0, 3 * iterations)),
        seed=draw(seeds),
    )


@law(reborn(), examples=15)
def parts_of_a_trajectory_share_target_and_no_patch_and_cover_the_grid(case):
    images = case.invert()
    assert len(images) == case.count
    assert images.trajectory.tolist() == [index // case.parts for index in range(case.count)]
    assert images.part.tolist() == [index % case.parts for index in range(case.count)]
    size = case.model.patches // case.parts
    assert images.mask().sum(1).tolist() == [case.model.patches if case.parts == 1 else size] * case.count
    for trajectory in range(2):  # the third may be cut short
        of = images.select(images.trajectory == trajectory)
        shown = of.mask().sum(0)
        assert case.parts == 1 or (shown.max() == 1 and shown.sum() == case.parts * size)
        if case.model.patches % case.parts == 0:
            assert shown.min() == 1
        assert len(set(of.targets.tolist())) == 1
        assert all(same(of.pixels[0], other) for other in of.pixels)


@law(reborn(), examples=15)
def a_part_that_has_left_never_changes_again(case):
    assume(case.parts > 1)
    images = case.invert(snapshots=range(case.iterations + 1))
    pixels, masks = images.traces["snapshot_pixels"], images.traces["snapshot_mask"]
    for index, part in enumerate(images.part.tolist()):
        left_at = (*case.leaves_at, case.iterations)[part]
        one = images.select(slice(index, index + 1))
        inside = ~stopped_pixels(one, one.mask())[0]
        assert same(pixels[left_at][index][inside], images.pixels[index][inside])
        for later in range(left_at + 1, case.iterations + 1):
            assert same(pixels[later][index][inside], images.pixels[index][inside])
        assert masks[left_at - 1][index][one.kept[0]].all()  # until then it was in
        if left_at < case.iterations:
            assert not masks[left_at][index][one.kept[0]].any()


@law(reborn(), examples=10)
def the_most_important_leave_first(case):
    assume(case.parts > 1)
    images = case.invert()
    importance = images.traces["importance"]  # [leavings, B, P]
    for index, part in enumerate(images.part.tolist()):
        if part < case.parts - 1:
            ranked = importance[part, index]
            inside = ranked.isfinite()
            staying = inside.clone()
            staying[images.kept[index]] = False
            assert inside[images.kept[index]].all()
            assert ranked[images.kept[index]].min() >= ranked[staying].max()


@law(reborn(), examples=10)
def what_has_left_is_not_fed_again(case):
    assume(case.recipe == "deepinversion" and case.score == "random")  # no passes but those of iterations
    model, fed = case.model.make(), []
    prefix = model.num_prefix_tokens
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0].shape[1] - prefix))
    case.invert(model, count=case.parts, batch_size=1)
    size, wanted = case.model.patches // case.parts, []
    for iteration in range(case.iterations):
        wanted.append(case.model.patches - size * sum(iteration >= left for left in case.leaves_at))
    assert fed == wanted


@law(reborn(), examples=10)
def a_rebirth_of_one_part_is_dense_inversion(case):
    dense, ours = case.invert(stopping=None, count=3), case.invert(stopping=smi.Rebirth(1), count=3)
    assert same(dense.pixels, ours.pixels) and same(dense.targets, ours.targets) and ours.kept is None
    until = case.leaves_at[0] if case.leaves_at else case.iterations
    if case.parts > 1:  # and until the first leaving, any is
        shots = range(until + 1)
        of_dense, of_ours = (
            case.invert(**way, snapshots=shots).traces["snapshot_pixels"]
            for way in ({"stopping": None, "count": 3}, {"count": 3 * case.parts})
        )
        assert same(of_dense, of_ours[:, :: case.parts])


@law(reborn(), examples=10)
def a_resumed_rebirth_ends_in_the_same_bits(case):
    whole, again = case.invert(), resumed(case)
    assert whole == again and same(whole.trajectory, again.trajectory) and same(whole.part, again.part)


@law(reborn(), examples=5)
def saved_and_selected_images_know_their_trajectory_and_part(case):
    images = case.invert()
    with tempfile.TemporaryDirectory() as folder:
        images.save(Path(folder) / "images")
        loaded = smi.SyntheticImages.load(Path(folder) / "images")
    twice = smi.concatenate([images, loaded])
    assert loaded == images and loaded.part is not None
    assert same(loaded.part, images.part) and same(loaded.trajectory, images.trajectory)
    assert same(twice.part, torch.cat([images.part] * 2))
    further = int(images.trajectory.max()) + 1
    assert same(twice.trajectory, torch.cat([images.trajectory, images.trajectory + further]))
    last = images[-1]
    assert last.part.tolist() == [(case.count - 1) % case.parts]


FAULTS = [
    Fault(
        "the least important leave",
        rebirth.Rebirth,
        "leave",
        "order[:, :size]",
        "order[:, -size:]",
        "parts_of_a_trajectory_share_target_and_no_patch_and_cover_the_grid",
    ),
    Fault(
        "they leave in the order of their indices",
        stopping,
        "ranked",
        "torch.sort(importance, dim=1, descending=True, stable=True).indices",
        "torch.arange(kept.shape[1]).repeat(len(kept), 1)",
        "the_most_important_leave_first",
    ),
    Fault(
        "patches that have left go on",
        rebirth.Rebirth,
        "stay",
        "order[:, order.shape[1] - count :]",
        "order[:, :count]",
        "a_part_that_has_left_never_changes_again",
    ),
    Fault(
        "they leave an iteration later",
        rebirth.Rebirth,
        "resolved",
        "tuple(k * step for",
        "tuple(min(k * step + 1, iterations - self.parts + k) for",
        "what_has_left_is_not_fed_again",
    ),
    Fault(
        "they leave too early",
        rebirth.Rebirth,
        "resolved",
        "step = iterations // self.parts",
        "step = max(1, iterations // self.parts - 1)",
        "a_rebirth_of_one_part_is_dense_inversion",
    ),
    Fault(
        "parts come out of a checkpoint in another order",
        state.Traces,
        "from_state_dict",
        "list(numbered(kind).values())",
        "list(numbered(kind).values())[::-1]",
        "a_resumed_rebirth_ends_in_the_same_bits",
    ),
    Fault(
        "a saved set forgets its parts",
        of_images.SyntheticImages,
        "save",
        'for name in ("kept", "trajectory", "part")',
        'for name in ("kept", "trajectory")',
        "saved_and_selected_images_know_their_trajectory_and_part",
    ),
    Fault(
        "parts are counted anew in each batch",
        inversion,
        "reborn",
        ".repeat(len(images))[:count]",
        ".repeat(len(images)).flip(0)[:count]",
        "parts_of_a_trajectory_share_target_and_no_patch_and_cover_the_grid",
    ),
]

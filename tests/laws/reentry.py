"""Laws of re-entry: which patches go on at a ranking, what the others do meanwhile, and how they come back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

import smi
from laws.adapter import Sized, sized
from laws.core import Fault, law, same, seeds
from laws.inverting import plain_inversion, resumed, runs, stopped_pixels
from smi import loop, state, stopping


@dataclass(frozen=True)
class Reentered:
    """A small inversion whose patches are ranked anew every few iterations."""

    model: Sized
    iterations: int
    at: tuple[int, ...]
    every: int
    score: str
    micro_batch: int | None
    stop_after: int
    seed: int

    @property
    def stopping(self) -> smi.Stopping:
        return smi.Stopping(self.at, 0.3, self.score, reenter_every=self.every)

    def invert(self, **changes) -> smi.SyntheticImages:
        chosen: dict[str, Any] = {
            "count": 3,
            "recipe": smi.recipe("deepinversion", iterations=self.iterations, jitter=1 / 2),
            "stopping": self.stopping,
            "seed": self.seed,
            "batch_size": 2,
            "execution": smi.Execution(micro_batch=self.micro_batch),
            "progress": False,
        }
        return smi.invert(self.model.make(), **chosen | changes)

    @property
    def ranked_at(self) -> list[int]:
        return [
            t
            for t in range(self.at[0], self.iterations)
            if t in self.at or (t - self.at[0]) % self.every == 0
        ]


@st.composite
def reentered(draw) -> Reentered:
    model = draw(sized.filter(lambda one: one.patches >= 4))
    iterations = draw(st.integers(4, 9))
    stops = draw(st.integers(1, 2))
    return Reentered(
        model=model,
        iterations=iterations,
        at=tuple(sorted(draw(st.permutations(range(1, iterations)))[:stops])),
        every=draw(st.integers(1, 3)),
        score=draw(st.sampled_from(sorted(smi.SCORES))),
        micro_batch=draw(st.sampled_from([None, 1])),
        stop_after=draw(st.integers(0, 2 * iterations)),
        seed=draw(seeds),
    )


@law(reentered(), examples=15)
def with_reentry_as_many_patches_are_in_as_without(case):
    shots = range(case.iterations + 1)
    ours, plain = (
        case.invert(stopping=way, snapshots=shots) for way in (case.stopping, smi.Stopping(case.at, 0.3))
    )
    of_ours, of_plain = (one.traces["snapshot_mask"].sum(2) for one in (ours, plain))
    assert same(of_ours, of_plain)
    assert ours.kept.shape == plain.kept.shape and same(ours.mask(), ours.traces["snapshot_mask"][-1])


@law(reentered(), examples=15)
def a_patch_that_is_out_holds_still(case):
    images = case.invert(snapshots=range(case.iterations + 1))
    pixels, masks = images.traces["snapshot_pixels"], images.traces["snapshot_mask"]
    for t in range(case.iterations):
        out = stopped_pixels(images, masks[t])
        assert same(pixels[t][out], pixels[t + 1][out])


@law(reentered(), examples=15)
def the_most_important_of_all_patches_go_on(case):
    images = case.invert(snapshots=range(case.iterations + 1))
    importance, masks = images.traces["importance"], images.traces["snapshot_mask"]
    assert len(importance) == len(case.ranked_at) and importance.isfinite().all()
    for ranked, t in zip(importance, case.ranked_at, strict=True):
        for of, goes_on in zip(ranked, masks[t], strict=True):
            assert of[goes_on].min() >= of[~goes_on].max()
    for t in {*range(case.iterations + 1)} - {*case.ranked_at, 0}:
        assert same(masks[t], masks[t - 1])


@law(st.tuples(runs(), st.integers(1, 3)), examples=12)
def the_reference_implementation_with_reentry_agrees(case):
    run, every = case
    run = replace(run, recipe="deepinversion", precision="fp32", score="cls_attention", batch_size=None)
    model = run.model.make().requires_grad_(False)
    ours = run.invert(model, stopping=smi.Stopping(run.at, run.drop, reenter_every=every))
    apart = (ours.pixels - plain_inversion(run, model, every)).abs()
    # a gradient near zero can turn by its rounding, and Adam makes a whole step of it
    assert (apart > 0.01).float().mean() < 0.02


@law(reentered(), examples=10)
def reentry_that_never_comes_is_plain_stopping(case):
    last = case.at[:1]  # one stop, and no further ranking before the end
    ours, plain = (
        case.invert(stopping=smi.Stopping(last, 0.3, case.score, every)) for every in (case.iterations, None)
    )
    assert ours == plain and same(ours.traces["importance"], plain.traces["importance"])


@law(reentered(), examples=15)
def a_resumed_reentry_ends_in_the_same_bits(case):
    whole, again = case.invert(), resumed(case)
    assert whole == again and same(whole.traces["importance"], again.traces["importance"])


FAULTS = [
    Fault(
        "only patches still in are ranked",
        loop.Loop,
        "candidates",
        "if self.config.reenters",
        "if not state.traces.importance",
        "the_most_important_of_all_patches_go_on",
    ),
    Fault(
        "patches are ranked anew an iteration later",
        stopping.Stopping,
        "rankings",
        "range(self.at[0], iterations",
        "range(self.at[0] + 1, iterations",
        "the_most_important_of_all_patches_go_on",
    ),
    Fault(
        "the last stop's number of patches is in from the first on",
        stopping.Stopping,
        "rankings",
        "self.count_at(t, patches) for t in",
        "self.kept_counts(patches)[-1] for t in",
        "with_reentry_as_many_patches_are_in_as_without",
    ),
    Fault(
        "what comes back has the moments of the first stop",
        state.State,
        "reenter",
        "self.extra[name].flatten(1).scatter_(1, self.pixels, moment.flatten(1))",
        "pass",
        "the_reference_implementation_with_reentry_agrees",
    ),
    Fault(
        "a checkpoint forgets the moments of patches that are out",
        state.State,
        "state_dict",
        "t for name, t in self.extra.items()",
        "torch.zeros_like(t) for name, t in self.extra.items()",
        "a_resumed_reentry_ends_in_the_same_bits",
    ),
    Fault(
        "the pixels of the next patch are moved",
        state.State,
        "hold",
        "pixel_index(kept, grid",
        "pixel_index((kept + 1) % grid.patches, grid",
        "a_patch_that_is_out_holds_still",
    ),
    Fault(
        "Adam starts anew at a ranking",
        state.State,
        "reenter",
        "in self._moments().items():",
        "in ():",
        "reentry_that_never_comes_is_plain_stopping",
    ),
]

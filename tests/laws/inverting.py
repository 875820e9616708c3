"""Laws of whole inversions, and the paper's text as a plain program to hold them to."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hypothesis import assume
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer

import smi
from laws.adapter import Sized, sized
from laws.core import law, same, seeds
from smi import geometry, inversion
from smi.files import load_tensors
from smi.state import InversionConfig, State
from smi.vit import adapt


@dataclass(frozen=True)
class Run:
    """A whole small inversion."""

    model: Sized
    iterations: int
    at: tuple[int, ...]
    drop: tuple[float, ...]
    score: str
    recipe: str
    count: int
    batch_size: int | None
    precision: str
    stop_after: int
    seed: int

    def settings(self, **changes) -> dict[str, Any]:
        recipes = {
            "deepinversion": smi.recipe("deepinversion", iterations=self.iterations, jitter=1 / 2),
            "psaq": smi.recipe("psaq", iterations=self.iterations, rounds=1, jitter=1 / 2, warmup=1),
        }
        chosen = {
            "count": self.count,
            "recipe": recipes[self.recipe],
            "stopping": smi.Stopping(self.at, self.drop, self.score),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "execution": smi.Execution(precision=self.precision),
        }
        return chosen | changes

    def invert(self, model=None, **changes) -> smi.SyntheticImages:
        return smi.invert(self.model.make() if model is None else model, **self.settings(**changes))

    def counts(self) -> tuple[int, ...]:
        return smi.Stopping(self.at, self.drop).kept_counts(self.model.patches)


@st.composite
def runs(draw) -> Run:
    model = draw(sized)
    iterations = draw(st.integers(4, 8))
    at = tuple(sorted(draw(st.sets(st.integers(1, iterations - 1), min_size=1, max_size=3))))
    drop = tuple(draw(st.floats(0.05, 0.5)) for _ in at)
    left = model.patches
    for fraction in drop:
        left = int(left * (1 - fraction) + 1e-9)
    assume(left >= 1)
    return Run(
        model=model,
        iterations=iterations,
        at=at,
        drop=drop,
        score=draw(st.sampled_from(sorted(smi.SCORES))),
        recipe=draw(st.sampled_from(["deepinversion", "deepinversion", "psaq"])),
        count=draw(st.integers(1, 3)),
        batch_size=draw(st.sampled_from([None, 1, 2])),
        precision=draw(st.sampled_from(["fp32", "fp32", "bf16"])),
        stop_after=draw(st.integers(0, 2 * iterations)),
        seed=draw(seeds),
    )


def snapshots_of(run: Run) -> tuple[smi.SyntheticImages, torch.Tensor, torch.Tensor]:
    """(images, pixels [T + 1, B, C, H, W], masks [T + 1, B, P]) before every iteration and at the end."""
    images = run.invert(snapshots=range(run.iterations + 1))
    return images, images.traces["snapshot_pixels"], images.traces["snapshot_mask"]


def stopped_pixels(images: smi.SyntheticImages, mask: torch.Tensor) -> torch.Tensor:
    """bool [B, C, H, W], true where a patch is not in the mask."""
    grid, channels = images.grid, images.pixels.shape[1]
    size = channels * grid.patch_height * grid.patch_width
    return geometry.unpatchify((~mask).unsqueeze(2).expand(-1, -1, size), grid)


@law(runs(), examples=12)
def a_stopped_patch_never_changes_again(run):
    images, pixels, masks = snapshots_of(run)
    for iteration in range(run.iterations):
        stopped = stopped_pixels(images, masks[iteration])
        assert same(pixels[iteration][stopped], pixels[-1][stopped])
        assert same(pixels[iteration][stopped], images.pixels[stopped])


@law(runs(), examples=12)
def kept_sets_shrink_by_the_schedule(run):
    images, _, masks = snapshots_of(run)
    schedule = smi.Stopping(run.at, run.drop)
    for iteration in range(run.iterations):
        wanted = schedule.count_at(iteration, run.model.patches)
        assert masks[iteration].sum(1).tolist() == [wanted] * run.count
        assert not (masks[iteration + 1] & ~masks[iteration]).any()  # each a subset of the one before
    assert same(images.mask(), masks[-1])
    assert images.kept.shape == (run.count, run.counts()[-1])
    assert (images.kept.diff(dim=1) > 0).all()


@law(runs(), examples=10)
def patches_that_are_in_go_on_moving(run):
    assume(run.recipe == "deepinversion")
    images, pixels, _ = snapshots_of(run)
    inside = ~stopped_pixels(images, images.mask())
    for image in range(run.count):
        assert not torch.equal(pixels[run.at[-1]][image][inside[image]], pixels[-1][image][inside[image]])


@law(runs(), examples=10)
def until_the_first_stop_sparse_is_dense(run):
    # in fp32 the same operations run on the same numbers
    dense = run.invert(stopping=None, snapshots=range(run.iterations + 1)).traces["snapshot_pixels"]
    _, sparse, _ = snapshots_of(run)
    assert same(sparse[: run.at[0] + 1], dense[: run.at[0] + 1])


@law(runs(), examples=8)
def images_are_valid_and_named_by_valid_targets(run):
    images = run.invert()
    assert images.pixels.dtype == torch.float32 and images.targets.dtype == torch.int64
    assert images.pixels.min() >= 0 and images.pixels.max() <= 1
    assert images.targets.min() >= 0 and images.targets.max() < 4
    assert images.pixels.shape[0] == run.count == len(images)


@law(runs(), examples=8)
def the_optimised_variable_stays_in_the_valid_range(run):
    """Clamping the result alone would hide a range that was left on the way: the state itself must be valid."""
    steep = smi.recipe(run.settings()["recipe"], learning_rate=5.0)
    assume(run.at[0] < run.iterations - 1)  # there is a state between a stop and the end
    seen = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"

        def look() -> bool:
            """At the state that each iteration has left."""
            tensors = load_tensors(path, smi.CheckpointError)[0] if path.exists() else {}
            states = {name: t for name, t in tensors.items() if name.split(".")[1] in ("image", "variable")}
            seen.update(name.split(".")[1] for name in states)
            assert all(state.abs().max() <= 2 for state in states.values())  # mean .5, std .25
            return False

        run.invert(recipe=steep, checkpoint=smi.Checkpoint(path, seconds=0), should_stop=look)
        look()
    assert seen == {"image", "variable"}


@law(runs(), examples=8)
def same_seed_same_bits_other_seed_other_images(run):
    one, again, other = run.invert(), run.invert(), run.invert(seed=run.seed + 1)
    assert same(one.pixels, again.pixels) and same(one.kept, again.kept) and same(one.targets, again.targets)
    assert not torch.equal(one.pixels, other.pixels)


@law(runs(), examples=8)
def the_model_given_is_unchanged(run):
    model = run.model.make().train()
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    first = next(model.parameters()).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run.invert(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(p.requires_grad is (p is not first) and p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


def resumed(case: Any, **settings) -> smi.SyntheticImages:
    """What a case's inversion gives that is stopped before its iteration `stop_after`, counted over batches, and then
    called again."""
    asked = iter(range(10**6))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        try:
            case.invert(checkpoint=path, should_stop=lambda: next(asked) == case.stop_after, **settings)
        except smi.Interrupted:
            pass
        return case.invert(checkpoint=path, **settings)


@law(runs(), examples=8)
def a_resumed_run_ends_in_the_same_bits(run):
    kept_on_the_way = {"snapshots": (0, run.iterations)}
    whole, again = run.invert(**kept_on_the_way), resumed(run, **kept_on_the_way)
    assert (
        same(whole.pixels, again.pixels)
        and same(whole.kept, again.kept)
        and same(whole.targets, again.targets)
        and whole.made["history"] == again.made["history"]
        and all(torch.equal(t.nan_to_num(), again.traces[n].nan_to_num()) for n, t in whole.traces.items())
    )


def plain_inversion(run: Run, model: VisionTransformer, reenter_every: int | None = None) -> torch.Tensor:
    """The paper's text as plainly as it can be written: whole images, timm's own modules, autograd, Adam by hand.

    reenter_every: all patches are ranked anew every so many iterations; moments of those that are out hold still.
    Returns pixels [B, C, H, W] in [0, 1]. Only the noise, the targets and the draws of jitter are the engine's.
    """
    recipe, counts, tokens = run.settings()["recipe"], run.counts(), adapt(model)
    origin = (inversion.derived_seed(run.seed, 0, "images"), 0)
    start = State.start(tokens, InversionConfig(recipe), run.count, None, origin, torch.device("cpu"))
    image, first, second = start.image.clone(), torch.zeros_like(start.image), torch.zeros_like(start.image)
    kept = torch.arange(run.model.patches).repeat(run.count, 1)
    cells_of = torch.arange(run.model.patches).view(1, 1, run.model.rows, run.model.columns)
    prefix, inside = model.num_prefix_tokens, torch.ones_like(image, dtype=torch.bool)
    for iteration in range(run.iterations):
        since = iteration - run.at[0]
        if iteration in run.at or (reenter_every is not None and since >= 0 and since % reenter_every == 0):
            if reenter_every is not None:
                kept = torch.arange(run.model.patches).repeat(run.count, 1)
            attention = tokens.cls_attention(image, kept)
            passed = sum(iteration >= stop for stop in run.at)
            best = attention.argsort(dim=1, descending=True)[:, : counts[passed - 1]]
            kept = kept.gather(1, best).sort(dim=1).values
            mask = torch.zeros(run.count, run.model.patches, dtype=torch.bool).scatter_(1, kept, True)
            mask = mask.view(run.count, 1, run.model.rows, run.model.columns)
            inside = mask.repeat_interleave(run.model.patch[0], 2).repeat_interleave(run.model.patch[1], 3)
            inside = inside.expand_as(image)
        jitter = recipe.draw_jitter(iteration, *image.shape[2:], start.jitter_generator)
        image.requires_grad_(True)
        view = torch.roll(image, (jitter.rows, jitter.columns), (2, 3))
        steps = [
            (2 * o + p) // (2 * p)
            for o, p in zip((jitter.rows, jitter.columns), run.model.patch, strict=True)
        ]
        moved = torch.roll(cells_of, steps, (2, 3))  # which patch each cell now holds
        view, moved = (view.flip(3), moved.flip(3)) if jitter.flip else (view, moved)
        places = (kept.unsqueeze(2) == moved.view(1, 1, -1)).int().argmax(2)
        x = model._pos_embed(model.patch_embed(view))
        x = torch.cat([x[:, :prefix], x[:, prefix:].take_along_dim(places.unsqueeze(2), 1)], 1)
        logits = model.forward_head(model.norm(model.blocks(model.norm_pre(x))))
        loss = torch.nn.functional.cross_entropy(logits, start.targets) + 1e-4 * plain_total_variation(image)
        (gradient,) = torch.autograd.grad(loss, image)
        image = image.detach()
        rate, (beta1, beta2) = recipe.learning_rate_at(iteration), recipe.betas
        first = torch.where(inside, beta1 * first + (1 - beta1) * gradient, first)
        second = torch.where(inside, beta2 * second + (1 - beta2) * gradient**2, second)
        unbiased = first / (1 - beta1 ** (iteration + 1)), second / (1 - beta2 ** (iteration + 1))
        stepped = (image - rate * unbiased[0] / (unbiased[1].sqrt() + 1e-8)).clamp(-2, 2)
        image = torch.where(inside, stepped, image)
    return (image * 0.25 + 0.5).clamp(0, 1)


def plain_total_variation(x: torch.Tensor) -> torch.Tensor:
    pairs = ((x[..., 1:], x[..., :-1]), (x[..., 1:, :], x[..., :-1, :]))
    diagonals = ((x[..., 1:, 1:], x[..., :-1, :-1]), (x[..., 1:, :-1], x[..., :-1, 1:]))
    return sum(torch.linalg.vector_norm(one - other) for one, other in (*pairs, *diagonals))


@law(runs(), examples=12)
def the_reference_implementation_agrees(run):
    run = replace(run, recipe="deepinversion", precision="fp32", score="cls_attention", batch_size=None)
    model = run.model.make().requires_grad_(False)
    apart = (run.invert(model).pixels - plain_inversion(run, model)).abs()
    # Adam turns the rounding of a gradient near zero into a whole step, so a few pixels may differ
    assert (apart > 0.01).float().mean() < 0.02

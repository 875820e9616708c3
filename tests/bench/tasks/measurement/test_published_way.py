"""The engine against the plain, published way (measurement/published_way.py): the same losses, gradients and steps."""

import math

import pytest
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

import smi
from bench.tasks.measurement import published_way
from bench.tasks.measurement.measure import saved_bytes
from smi.execution import Passes
from smi.geometry import Jitter, PatchGrid, pixel_index, take_patches
from smi.loop import Loop
from smi.objectives import TERMS, Step
from smi.patch_similarity import similarity_entropy
from smi.state import InversionConfig, State
from smi.total_variation import tv_l2
from smi.vit import adapt, frozen
from smi.weights import halved

JITTERS = [Jitter(), Jitter(4, -8), Jitter(-3, 7, flip=True), Jitter(5, 0, flip=True)]
RECIPES = ["deepinversion", "psaq"]


def loop_of(model, recipe: str, **passes) -> Loop:
    named = smi.recipe(recipe, iterations=8, **({"warmup": 2} if recipe == "psaq" else {}))
    tokens = adapt(model)
    return Loop(tokens, InversionConfig(named), Passes(tokens, **passes))


def state_of(loop: Loop, size: int = 3, kept: int | None = None, dtype=torch.float64) -> State:
    """A batch in the middle of nowhere: noise, and as many kept patches of each image as asked."""
    tokens, recipe = loop.model, loop.config.recipe
    state = State.start(tokens, loop.config, size, None, (1, 2), torch.device("cpu"))
    state.image = state.image.to(dtype)
    state.optimizer = torch.optim.Adam([state.image], recipe.learning_rate, recipe.betas)
    if kept is not None:
        order = torch.rand(size, tokens.num_patches, generator=torch.Generator().manual_seed(3)).argsort(1)
        state.hold(order[:, :kept].sort(1).values, tokens.grid)
    return state


def published(loop: Loop, state: State) -> published_way.PublishedInversion:
    recipe, kept = loop.config.recipe, state.kept
    return published_way.PublishedInversion(
        loop.model.model, recipe, state.image, state.targets, kept, state.chance
    )


@pytest.mark.parametrize("jitter", JITTERS)
@pytest.mark.parametrize("kept", [None, 16, 5])
@pytest.mark.parametrize("recipe", RECIPES)
def test_same_loss_and_gradient_in_float64(tiny_vit, recipe, kept, jitter):
    model = tiny_vit().double()
    loop = loop_of(model, recipe)
    state = state_of(loop, kept=kept)
    with frozen(model):
        loss, gradient = loop.gradient(state, jitter)
    wanted, wanted_gradient = published(loop, state).loss_and_gradient(jitter)
    assert_close(loss, wanted, rtol=1e-10, atol=1e-10)
    assert_close(gradient, wanted_gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("recipe", RECIPES)
def test_same_steps(tiny_vit, recipe):
    """Eight iterations of Adam in float64 with jitter, flip, learning rate and clamp as the recipe has them."""
    model = tiny_vit().double()
    loop = loop_of(model, recipe)
    state = state_of(loop)
    plain = published(loop, state)
    generator = torch.Generator()
    generator.set_state(state.jitter_generator.get_state())
    with frozen(model):
        for iteration in range(8):
            loop.iterate(state)
            state.iteration += 1
            loss = plain.step(loop.config.recipe.draw_jitter(iteration, 16, 16, generator), iteration)
            assert_close(state.losses[iteration], loss.float())
    assert_close(state.image, plain.image.detach(), rtol=1e-7, atol=1e-7)


def test_the_reference_computes_weight_gradients_and_keeps_all_maps(tiny_vit):
    model = tiny_vit()
    loop = loop_of(model, "deepinversion")
    plain = published(loop, state_of(loop, kept=5, dtype=torch.float32))
    plain.loss_and_gradient(Jitter())
    assert all(parameter.grad is not None for parameter in plain.model.parameters())
    assert [tuple(attention.shape) for attention in plain.maps] == [(3, 2, 6, 6)] * 2
    assert all(parameter.grad is None for parameter in model.parameters())


def test_published_formulations_of_the_terms():
    image = torch.randn(2, 3, 9, 7, dtype=torch.float64)
    assert_close(published_way.total_variation(image), tv_l2(image))
    output = torch.randn(2, 12, 5, dtype=torch.float64)
    assert_close(published_way.similarity_entropy(output), similarity_entropy(output))
    step = Step(image=image, view=image, chance=0.25)
    target = (2500 + 0.25 * 500) * math.sqrt(image.numel() / (32 * 3 * 224 * 224))
    assert_close(TERMS["tv_l2_target"](step), (published_way.total_variation(image) - target).abs())


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
@pytest.mark.parametrize("kept", [None, 5])
def test_micro_batches_have_the_gradient_of_one_batch(tiny_vit, kept, micro_batch):
    model = tiny_vit().double()
    loop = loop_of(model, "deepinversion")
    state = state_of(loop, size=5, kept=kept)
    with frozen(model):
        whole = loop.gradient(state, JITTERS[2])
        parts = loop_of(model, "deepinversion", micro_batch=micro_batch).gradient(state, JITTERS[2])
    for one, other in zip(whole, parts, strict=True):
        assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_micro_batches_give_the_same_images_up_to_rounding_and_need_less(tiny_vit):
    settings = {"count": 6, "iterations": 10, "stopping": smi.Stopping(at=(3, 6), drop=0.3), "seed": 1}
    ways = [smi.Execution(micro_batch=size) for size in (None, 2)]
    whole, parts = (smi.invert(tiny_vit(), **settings, execution=way) for way in ways)
    assert whole.kept.equal(parts.kept)
    assert_close(whole.pixels, parts.pixels, rtol=0, atol=1e-3)
    model = tiny_vit()
    loop, split = loop_of(model, "deepinversion"), loop_of(model, "deepinversion", micro_batch=1)
    state = state_of(loop, size=6, dtype=torch.float32)
    with frozen(model):
        everything = saved_bytes(lambda: loop.gradient(state, Jitter()))
        of_one = saved_bytes(lambda: split.gradient(state, Jitter()))
    assert of_one < 0.5 * everything


def test_terms_that_couple_images_are_not_split(tiny_vit):
    with pytest.raises(
        smi.InvalidSetting, match="micro_batch cannot split the term patch_similarity_entropy"
    ):
        smi.invert(
            tiny_vit(),
            2,
            smi.recipe("psaq", iterations=6, warmup=2),
            execution=smi.Execution(micro_batch=1),
        )
    with pytest.raises(smi.InvalidSetting, match="micro_batch is 0"):
        smi.Execution(micro_batch=0)


@pytest.mark.parametrize("kept", [None, 5])
def test_less_is_saved_for_backward_and_it_does_not_grow(tiny_vit, kept):
    model = tiny_vit()
    loop = loop_of(model, "deepinversion")
    state = state_of(loop, kept=kept, dtype=torch.float32)
    plain = published(loop, state)
    with frozen(model):

        def step():
            loop.iterate(state)
            state.iteration += 1

        saved = [saved_bytes(step) for _ in range(4)]
    assert len(set(saved)) == 1
    assert saved[0] < saved_bytes(lambda: plain.step(Jitter()))


@pytest.mark.parametrize("kept", [None, 5])
def test_only_what_the_head_reads_leaves_the_last_block(tiny_vit, kept):
    """Multiplications of linear layers, counted: patches of the last block are keys and values alone."""
    model = tiny_vit().requires_grad_(False)
    width, depth, classes, pixels, batch = 16, 2, 5, 48, 3
    patches = kept or 16
    image = torch.randn(batch, 3, 16, 16)
    chosen = None if kept is None else torch.arange(kept).repeat(batch, 1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        adapt(model).forward(image, chosen)
    counted = counter.get_flop_counts()["Global"]
    linear = sum(counted.get(op, 0) for op in (torch.ops.aten.addmm, torch.ops.aten.mm)) // 2
    tokens = patches + 1
    wanted = patches * pixels * width + (depth - 1) * tokens * 12 * width**2  # embedding, whole blocks
    wanted += (
        tokens * 2 * width**2 + 10 * width**2 + classes * width
    )  # keys and values; the rest for CLS; head
    assert linear == batch * wanted


@pytest.mark.parametrize("jitter", JITTERS)
def test_pixels_are_gathered_as_if_the_image_had_been_jittered(jitter):
    grid = PatchGrid(4, 3, 4, 5)
    image = torch.randn(2, 3, grid.height, grid.width)
    kept = torch.tensor([[0, 2, 7, 11], [1, 5, 6, 10]])
    places = jitter.pixel_index(kept, grid, 3)
    view = take_patches(jitter.apply(image), jitter.remap(kept, grid), grid)
    assert torch.equal(image.flatten(1).gather(1, places), view.flatten(1))
    assert all(len(row.unique()) == len(row) for row in places)
    own = pixel_index(kept, grid, 3)
    assert torch.equal(image.flatten(1).gather(1, own), take_patches(image, kept, grid).flatten(1))


def test_weights_cast_once_give_the_bits_of_weights_cast_by_autocast(tiny_vit):
    model = tiny_vit()
    image = torch.randn(2, 3, 16, 16)
    with frozen(model), torch.autocast("cpu", torch.bfloat16):
        assert adapt(model).forward(image).equal(adapt(halved(model)).forward(image))
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())

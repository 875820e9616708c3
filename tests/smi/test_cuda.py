"""What only a GPU can show: recorded and compiled passes, arithmetic, the engine beside the published way there.

`nox -s gpu_tests` runs these. tests/smi/test_execution.py holds on a CPU what a CPU can hold of them.
"""

from contextlib import nullcontext

import pytest
import torch
from torch.testing import assert_close

import smi
from bench.tasks.measurement.published_way import PublishedInversion
from smi.device import float32_arithmetic
from smi.loop import Loop
from smi.state import InversionConfig, State
from smi.vit import adapt

pytestmark = pytest.mark.gpu
SHORT = smi.recipe("deepinversion", iterations=8, learning_rate=0.1)
PSAQ = smi.recipe("psaq", iterations=6, warmup=2)
STOPPING = smi.Stopping(at=(2, 5), drop=0.3)
NEAR = {"rtol": 0, "atol": 5e-3}  # a few steps of Adam at a rate of 0.1, from rounding


def inverted(model, recipe=SHORT, stopping=STOPPING, count=4, batch_size=2, **settings):
    """Two batches, so that the second finds what the first has recorded."""
    execution = smi.Execution(**settings.pop("execution", {}))
    return smi.invert(
        *(model, count, recipe, stopping, 1),
        batch_size=batch_size,
        device="cuda",
        execution=execution,
        **settings,
    )


@pytest.mark.parametrize(("recipe", "stopping"), [(SHORT, None), (SHORT, STOPPING), (PSAQ, None)])
@pytest.mark.parametrize("outer", [False, True], ids=["", "in a caller's autocast"])
def test_cuda_graphs_make_the_images_of_plain_passes(tiny_vit, recipe, stopping, outer):
    with torch.autocast("cuda", torch.bfloat16) if outer else nullcontext():
        ours, plain = (
            inverted(tiny_vit(), recipe, stopping, execution={"cuda_graphs": on}) for on in (True, False)
        )
    assert_close(ours.pixels, plain.pixels, **NEAR)
    if stopping is not None:
        assert ours.kept.equal(plain.kept)


@pytest.mark.parametrize("outer", [False, True], ids=["", "in a caller's autocast"])
@pytest.mark.parametrize("micro_batch", [None, 1])
def test_cuda_graphs_in_half_precision_and_in_parts(tiny_vit, outer, micro_batch):
    """A stale cast of the pixels would move them by a third of their range."""
    ways = [{"precision": "bf16", "micro_batch": micro_batch, "cuda_graphs": on} for on in (True, False)]
    with torch.autocast("cuda", torch.bfloat16) if outer else nullcontext():
        ours, plain = (inverted(tiny_vit(), stopping=None, execution=way) for way in ways)
    assert (ours.pixels - plain.pixels).abs().mean() < 0.01


def test_runs_of_cuda_graphs_go_on_after_an_interruption(tiny_vit, tmp_path):
    way = {"execution": {"cuda_graphs": True}}
    whole = inverted(tiny_vit(), **way)
    asked = iter(range(100))
    with pytest.raises(smi.Interrupted):
        inverted(tiny_vit(), **way, checkpoint=tmp_path / "state", should_stop=lambda: next(asked) >= 11)
    assert_close(inverted(tiny_vit(), **way, checkpoint=tmp_path / "state").pixels, whole.pixels, **NEAR)


@pytest.mark.parametrize(("recipe", "stopping"), [(SHORT, None), (SHORT, STOPPING), (PSAQ, None)])
@pytest.mark.parametrize("graphs", [False, True], ids=["", "in CUDA graphs"])
def test_compiled_passes_make_the_images_of_plain_ones(tiny_vit, recipe, stopping, graphs):
    ways = [{"compile": True, "cuda_graphs": graphs}, {}]
    ours, plain = (inverted(tiny_vit(depth=1), recipe, stopping, execution=way) for way in ways)
    assert_close(ours.pixels, plain.pixels, **NEAR)


@pytest.mark.parametrize("kept", [None, 5])
@pytest.mark.parametrize("name", ["deepinversion", "psaq"])
def test_the_engine_is_the_published_way_in_ieee_fp32(tiny_vit, name, kept):
    """Loss and gradient of one pass, on the same pixels; TF32 on one side would show in the third digit."""
    model = tiny_vit(embed_dim=192, num_heads=3).cuda()
    tokens, recipe = adapt(model), smi.recipe(name, iterations=8, **({"warmup": 2} if name == "psaq" else {}))
    state = State.start(tokens, InversionConfig(recipe), 3, None, (1, 2), torch.device("cuda"))
    if kept is not None:
        state.hold(torch.rand(3, tokens.num_patches).argsort(1)[:, :kept].sort(1).values.cuda(), tokens.grid)
    passes = smi.Execution().passes(tokens, recipe.objective.needs)
    loop = Loop(tokens, InversionConfig(recipe), passes)
    jitter = loop.draw_jitter(state)
    published = PublishedInversion(model, recipe, state.image, state.targets, state.kept, state.chance)
    with float32_arithmetic("cuda"):
        loss, gradient = loop.gradient(state, jitter)
        wanted_loss, wanted = published.loss_and_gradient(jitter)
    assert_close(loss, wanted_loss, rtol=1e-4, atol=1e-5)
    inside = torch.ones_like(gradient, dtype=torch.bool)
    if kept is not None:  # elsewhere only the published way's total variation pulls
        inside = (
            torch.zeros_like(inside).flatten(1).scatter(1, state.pixels.flatten(1), True).view_as(gradient)
        )
    assert_close(gradient[inside], wanted[inside], rtol=1e-2, atol=1e-5 * wanted.abs().max().item() + 1e-7)


@pytest.mark.parametrize("before", ["torch's own", "all tf32"])
def test_float32_is_ieee_unless_tf32_is_asked_for(before):
    """Products and convolutions beside float64: IEEE's error is near 1e-7 of the result, TF32's near 3e-4."""
    generator = torch.Generator("cuda").manual_seed(0)
    one, other = torch.randn(2, 512, 512, device="cuda", generator=generator)
    picture = torch.randn(2, 64, 64, 64, device="cuda", generator=generator)
    filters = torch.randn(64, 64, 3, 3, device="cuda", generator=generator)

    def errors():
        pairs = [(one @ other, one.double() @ other.double())]
        exact = torch.nn.functional.conv2d(picture.double(), filters.double())
        pairs.append((torch.nn.functional.conv2d(picture, filters), exact))
        return [float((ours - exact).norm() / exact.norm()) for ours, exact in pairs]

    def flags():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    own = flags()
    if before == "all tf32":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        found = flags()
        with float32_arithmetic("cuda"):
            assert max(errors()) < 1e-5
            with float32_arithmetic("cuda", "tf32"):
                assert min(errors()) > 5e-5
            assert max(errors()) < 1e-5
        assert flags() == found
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = own


def test_a_model_quantized_on_a_gpu_answers_as_on_a_cpu(tiny_vit):
    images = smi.invert(tiny_vit(), 8, SHORT, STOPPING, seed=1, device="cpu")
    inputs = torch.rand(16, 3, 16, 16)
    here, there = (smi.quantize(tiny_vit().to(device), images, 8, 8) for device in ("cpu", "cuda"))
    with torch.no_grad(), float32_arithmetic("cuda"):
        wanted, ours = here(inputs), there(inputs.cuda()).cpu()
    assert (ours - wanted).norm() < 0.02 * wanted.norm()  # a value may fall on the next of 256 levels

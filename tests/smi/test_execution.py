"""How the model part is executed: prepacked weights, torch.compile and replayed passes, against the plain way."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import smi
from smi.device import outside_callers_modes
from smi.execution import Passes, Replayed, _refusal
from smi.geometry import Jitter
from smi.loop import Loop
from smi.state import InversionConfig, State
from smi.vit import adapt, frozen
from smi.weights import prepacked

SHORT = smi.recipe("deepinversion", iterations=8, learning_rate=0.1)
STOPPING = smi.Stopping(at=(2, 5), drop=0.3)
NEAR = {"rtol": 0, "atol": 1e-3}  # eight steps of Adam at a rate of 0.1, from rounding
JITTER = Jitter(-3, 2, flip=True)


def loop_of(model: nn.Module, recipe: str, **passes) -> Loop:
    named = smi.recipe(recipe, iterations=8, **({"warmup": 2} if recipe == "psaq" else {}))
    tokens = adapt(model)
    return Loop(tokens, InversionConfig(named), Passes(tokens, **passes))


def state_of(loop: Loop, kept: int | None, size: int = 3) -> State:
    """Noise, and as many kept patches of each image as asked, drawn anew in each call."""
    tokens = loop.model
    state = State.start(tokens, loop.config, size, None, (1, 2), torch.device("cpu"))
    if kept is not None:
        state.hold(torch.rand(size, tokens.num_patches).argsort(1)[:, :kept].sort(1).values, tokens.grid)
    return state


def wide_vit(tiny_vit, **overrides) -> nn.Module:
    return tiny_vit(embed_dim=192, num_heads=3, **overrides)


# ---- prepacked weights


@pytest.fixture
def packs(monkeypatch):
    """Weights are prepacked as on a processor that gains from it: oneDNN computes the same on any."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


@pytest.mark.usefixtures("packs")
@pytest.mark.parametrize("recipe", ["deepinversion", "psaq"])
@pytest.mark.parametrize("kept", [None, 5])
def test_prepacked_weights_have_the_loss_and_gradient_of_the_model(tiny_vit, kept, recipe):
    model = wide_vit(tiny_vit)
    loop = loop_of(model, recipe)
    state = state_of(loop, kept)
    passes = smi.Execution().passes(loop.model, loop.config.recipe.objective.needs)
    assert passes.observer.model is not model
    with frozen(model):
        plain = loop.gradient(state, JITTER)
        ours = replace(loop, passes=passes).gradient(state, JITTER)
    for one, other in zip(ours, plain, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert ours[1].abs().max() > 1e-4


@pytest.mark.usefixtures("packs")
def test_prepacked_copies_share_the_model_and_leave_it_alone(tiny_vit):
    model = wide_vit(tiny_vit).train()
    copied = prepacked(model)
    assert copied is not model
    assert {id(p) for p in copied.parameters()} == {id(p) for p in model.parameters()}
    assert not copied.training and all(module.training for module in model.modules())
    assert type(model.blocks[0].mlp.fc1) is nn.Linear and type(copied.blocks[0].mlp.fc1) is not nn.Linear


@pytest.mark.usefixtures("packs")
@pytest.mark.parametrize("change", ["narrow", "double", "hooked", "full"])
def test_other_models_are_not_prepacked(tiny_vit, change):
    """Small models keep their bits; hooks go on seeing their layers; some models hold what cannot be copied."""
    model = tiny_vit(embed_dim=96) if change == "narrow" else wide_vit(tiny_vit)
    if change == "double":
        model.double()
    if change == "hooked":
        model.blocks[0].register_forward_hook(lambda *_: None)
    if change == "full":
        model.last_seen = 2 * model.cls_token
    assert prepacked(model) is model


# ---- torch.compile


def compiled_and_eager(
    model: nn.Module, execution: smi.Execution | None = None, **settings
) -> tuple[smi.SyntheticImages, smi.SyntheticImages]:
    ways = [replace(execution or smi.Execution(), compile=on) for on in (True, False)]
    return tuple(smi.invert(model, 2, **settings, seed=1, execution=way) for way in ways)


def test_compiled_images_are_the_eager_ones_up_to_rounding_and_the_model_is_left_alone(tiny_vit):
    """PSAQ-ViT's loss watches every block through hooks: they are put into a copy."""
    model = tiny_vit(depth=1).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ours, plain = compiled_and_eager(model, recipe=smi.recipe("psaq", iterations=4, warmup=2))
    assert_close(ours.pixels, plain.pixels, **NEAR)
    assert ours.made["compile"] is True and "compile" not in plain.made
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_every_stage_is_compiled_however_many_there_are(tiny_vit):
    """torch counts the compilations of a function, and gives up after eight unless told otherwise."""
    with torch._dynamo.config.patch(recompile_limit=1):
        ours, plain = compiled_and_eager(tiny_vit(depth=1), recipe=SHORT, stopping=STOPPING)
    assert ours.kept.equal(plain.kept)
    assert_close(ours.pixels, plain.pixels, **NEAR)


@pytest.mark.slow
def test_compiled_in_half_precision(tiny_vit):
    recipe = smi.recipe(SHORT, iterations=4)
    ours, plain = compiled_and_eager(tiny_vit(depth=1), smi.Execution(precision="bf16"), recipe=recipe)
    assert (ours.pixels - plain.pixels).abs().mean() < 0.02


@pytest.mark.slow
def test_compiled_in_parts(tiny_vit):
    ours, plain = compiled_and_eager(tiny_vit(depth=1), smi.Execution(micro_batch=1), recipe=SHORT)
    assert_close(ours.pixels, plain.pixels, **NEAR)


@pytest.mark.slow
def test_compiled_batch_statistics_of_a_cnn():
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(8, 3))
    model.pretrained_cfg = {"input_size": (3, 16, 16), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    short = smi.recipe("deepinversion_bn", iterations=4, warmup=1, learning_rate=0.01)
    ours, plain = compiled_and_eager(model, recipe=short)
    assert_close(ours.pixels, plain.pixels, **NEAR)


@pytest.mark.slow
def test_compiled_runs_resume_to_the_same_bits_and_only_as_compiled_ones(tiny_vit, tmp_path):
    model, path = tiny_vit(depth=1), tmp_path / "state"
    settings = {"count": 2, "recipe": SHORT, "stopping": STOPPING, "seed": 3}
    compiled = {**settings, "execution": smi.Execution(compile=True)}
    whole = smi.invert(model, **compiled)
    calls = iter(range(100))
    with pytest.raises(smi.Interrupted):
        smi.invert(model, **compiled, checkpoint=path, should_stop=lambda: next(calls) >= 4)
    with pytest.raises(smi.CheckpointError, match="compile is True there"):
        smi.invert(model, **settings, checkpoint=path)
    resumed = smi.invert(model, **compiled, checkpoint=path)
    assert resumed.pixels.equal(whole.pixels) and resumed.kept.equal(whole.kept)


def test_a_missing_compiler_is_one_clear_line(tiny_vit, monkeypatch, tmp_path):
    from torch._inductor import config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    no_compiler = inductor.patch({"cpp.cxx": ("no-such-compiler",), "fx_graph_cache": False})
    one_line = pytest.raises(smi.InvalidSetting, match=r"^compile=True does not work here: [^\n]+$")
    with no_compiler, one_line as caught:
        smi.invert(tiny_vit(depth=1, embed_dim=24), 1, SHORT, execution=smi.Execution(compile=True))
    assert "ompiler" in str(caught.value)


def test_the_compilers_own_reason_is_the_one_that_is_given():
    class InductorError(RuntimeError):
        inner_exception = OSError("\n  no compiler here\nfurther lines")

    InductorError.__module__ = "torch._inductor.exc"
    assert str(_refusal(InductorError("Internal error, see the traceback"))) == (
        "compile=True does not work here: no compiler here"
    )
    plain = RuntimeError("out of luck")
    assert _refusal(plain) is plain


class TwoWays(nn.Module):
    """What no single graph can hold."""

    def forward(self, x):
        return 2 * x if x.sum() > 0 else x


def test_what_cannot_be_compiled_whole_is_refused_in_one_line():
    """In parts it would be as slow as without, and no one would know."""
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), TwoWays(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(4, 3))
    model.pretrained_cfg = {"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    short = smi.recipe("deepinversion_bn", iterations=1, warmup=0)
    with pytest.raises(smi.InvalidSetting, match=r"^compile=True does not work here: [^\n]+$"):
        smi.invert(model, 1, short, execution=smi.Execution(compile=True))


# ---- replayed passes


def stand_in(function):
    """As a CUDA graph does: results lie where they lay, and replaying writes them there anew."""
    results = [value.clone() for value in function()]

    def replay():
        for place, value in zip(results, function(), strict=True):
            place.copy_(value)
        return tuple(results)

    stand_in.recorded += 1
    return replay


@pytest.mark.parametrize(
    ("recipe", "micro_batch"),
    [("deepinversion", None), ("deepinversion", 2), ("psaq", None)],  # patch similarity is not split
)
def test_replayed_passes_are_the_plain_ones_bit_for_bit(tiny_vit, recipe, micro_batch):
    """Other jitter, pixels, targets and patches each time, through stops that change the shapes."""
    stand_in.recorded = 0
    model = tiny_vit()
    loop = loop_of(model, recipe, micro_batch=micro_batch)
    replayed = replace(loop, passes=replace(loop.passes, run=Replayed(stand_in)))
    counts = [None, None, 11, 11, 11, 5, None]
    with frozen(model):
        for index, kept in enumerate(counts):
            state = state_of(loop, kept)
            state.image.add_(index)
            state.targets = (state.targets + index) % 5
            jitter = Jitter(index, -index, flip=bool(index % 2))
            ours, plain = replayed.gradient(state, jitter), loop.gradient(state, jitter)
            assert ours[0].equal(plain[0]) and ours[1].equal(plain[1])
    assert stand_in.recorded == 4 * (1 if micro_batch is None else 2)  # one for each shape until it changes


class Tape(TorchDispatchMode):
    """Writes down every operation that is launched while it is open, as a CUDA graph does."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        results = operation(*args, **(kwargs or {}))
        self.calls.append((operation, args, kwargs or {}, results))
        return results


def taped(function):
    """As `smi.execution.record_cuda_graph`: a warm-up, then what is launched is recorded, and that alone replayed."""
    function()
    with Tape() as tape:
        results = function()

    @torch.no_grad()
    def replay():
        for operation, args, kwargs, before in tape.calls:
            after = operation(*args, **kwargs)
            for place, value in zip(tree_leaves(before), tree_leaves(after), strict=True):
                if isinstance(place, torch.Tensor) and place.data_ptr() != value.data_ptr():
                    place.copy_(value)
        return results

    return replay


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize("outer", [nullcontext(), torch.autocast("cpu", torch.bfloat16)])
def test_a_recorded_pass_reads_the_pixels_of_now(tiny_vit, precision, micro_batch, outer):
    """Inside a caller's autocast, what torch has cast in the warm-up outlives it, and a recording would skip it."""
    model = tiny_vit()
    loop = loop_of(model, "deepinversion")
    execution = smi.Execution(precision=precision, micro_batch=micro_batch)
    passes = execution.passes(loop.model, loop.config.recipe.objective.needs)
    plain = replace(loop, passes=passes)
    replayed = replace(loop, passes=replace(passes, run=Replayed(taped)))
    with frozen(model), outer, outside_callers_modes():
        for index, kept in enumerate([None, None, 9, 9]):
            state = state_of(loop, kept)
            state.image.add_(index)
            ours, wanted = replayed.gradient(state, JITTER), plain.gradient(state, JITTER)
            assert ours[0].equal(wanted[0]) and ours[1].equal(wanted[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "tf32"}, "precision 'tf32' needs a CUDA device; this is cpu"),
        ({"cuda_graphs": True}, "cuda_graphs needs a CUDA device; this is cpu"),
        ({"compile": "yes"}, "compile is 'yes'; allowed: True, False"),
        ({"cuda_graphs": 1}, "cuda_graphs is 1; allowed: True, False"),
    ],
)
def test_bad_executions_are_named(tiny_vit, settings, message):
    with pytest.raises(smi.InvalidSetting, match=f"^{message}$"):
        smi.invert(tiny_vit(), 2, SHORT, execution=smi.Execution(**settings))


@pytest.mark.slow
def test_replayed_passes_of_a_compiled_model_are_its_own(tiny_vit):
    model = tiny_vit(depth=1)
    loop = loop_of(model, "deepinversion")
    passes = smi.Execution(compile=True).passes(loop.model, loop.config.recipe.objective.needs)
    compiled = replace(loop, passes=passes)
    stand_in.recorded = 0
    replayed = replace(loop, passes=replace(passes, run=Replayed(stand_in)))
    with frozen(model):
        for index in range(3):
            state = state_of(loop, None)
            state.image.add_(index)
            ours, plain = replayed.gradient(state, JITTER), compiled.gradient(state, JITTER)
            assert ours[0].equal(plain[0]) and ours[1].equal(plain[1])
    assert stand_in.recorded == 1

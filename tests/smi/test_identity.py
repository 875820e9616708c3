"""What identifies a run: a checkpoint goes on with the model, functions and settings that began it, and no others."""

import copy

import numpy
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.utils import parametrize, prune

import smi
from smi.checkpoint import fingerprint
from smi.identity import same_answers

SHORT = smi.recipe("deepinversion", iterations=4, learning_rate=0.1)


def with_activation(make, kind):
    return make(act_layer=kind)


def with_norm(make, eps):
    return make(norm_layer=lambda width, **further: nn.LayerNorm(width, eps=eps))


def changed(change):
    def make(tiny_vit):
        model = tiny_vit()
        change(model)
        return model

    return make


def leaky(module, given, output):
    return output + 0.01


def less_leaky(module, given, output):
    return output + 0.001


class OwnGELU(nn.GELU):
    def forward(self, x):
        return super().forward(x) * 1.01


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def replaced(factor):
    def change(model):
        plain = model.blocks[0].forward
        model.blocks[0].forward = lambda x: plain(x) * factor

    return changed(change)


VARIANTS = {
    "plain": lambda make: make(),
    "ReLU": lambda make: with_activation(make, nn.ReLU),
    "another GELU": lambda make: with_activation(make, OwnGELU),
    "epsilon": lambda make: with_norm(make, 1e-2),
    "other epsilon": lambda make: with_norm(make, 1e-3),
    "dropout": lambda make: make(proj_drop_rate=0.2),
    "more dropout": lambda make: make(proj_drop_rate=0.3),
    "stochastic depth": lambda make: make(drop_path_rate=0.2),
    "two heads merged": lambda make: make(num_heads=4),
    "scale of attention": changed(lambda m: setattr(m.blocks[0].attn, "scale", 1.0)),
    "a hook": changed(lambda m: m.blocks[0].register_forward_hook(leaky)),
    "another hook": changed(lambda m: m.blocks[0].register_forward_hook(less_leaky)),
    "a hook elsewhere": changed(lambda m: m.blocks[1].register_forward_hook(leaky)),
    "a hook on the gradient": changed(lambda m: m.register_full_backward_hook(lambda *given: None)),
    "a replaced forward": replaced(1.1),
    "the same code with another constant in its closure": replaced(1.2),
    "a parametrization": changed(
        lambda m: parametrize.register_parametrization(m.head, "weight", Doubled(), unsafe=True)
    ),
    "pruned": changed(lambda m: prune.l1_unstructured(m.head, "weight", 0.2)),
    "pooled otherwise": changed(lambda m: setattr(m, "global_pool", "avg")),
    "prefix pooled": changed(lambda m: setattr(m, "pool_include_prefix", True)),
    "another normalisation": changed(lambda m: setattr(m, "pretrained_cfg", {"mean": (0.1,) * 3, "std": (1.0,) * 3})),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_each_difference_is_another_model_and_an_equal_one_is_the_same(tiny_vit):
    prints = {name: fingerprint(make(tiny_vit)) for name, make in VARIANTS.items()}
    assert len(set(prints.values())) == len(VARIANTS), sorted(prints.items(), key=lambda item: item[1])
    assert prints == {name: fingerprint(make(tiny_vit)) for name, make in VARIANTS.items()}


def test_what_does_not_change_answers_does_not_change_the_model(tiny_vit):
    model = tiny_vit()
    other = copy.deepcopy(model).train().requires_grad_(False)
    other.set_grad_checkpointing(True)
    for block in other.blocks:
        block.attn.fused_attn = False
    other.pretrained_cfg = {"url": "elsewhere"}
    assert fingerprint(model) == fingerprint(other)


def test_a_transposed_grid_is_another_run(tiny_vit, tmp_path):
    wide, high = tiny_vit(img_size=(16, 24)), tiny_vit(img_size=(24, 16))
    high.load_state_dict(wide.state_dict())
    smi.invert(wide, 1, SHORT, checkpoint=tmp_path / "state")
    with pytest.raises(smi.CheckpointError, match=r"^[^\n]*weights is[^\n]*$"):
        smi.invert(high, 1, SHORT, checkpoint=tmp_path / "state")


def test_answers_tell_what_no_description_shows(tiny_vit, tmp_path):
    """Here a switch outside the model, as a module of one's own may read one."""
    switch = {"factor": 1.0}

    class Reads(nn.Identity):
        def forward(self, x):
            return x * numpy.float64(switch["factor"]).item()

    Reads.__module__ = "timm.elsewhere"  # as if of a library, so that its code is not looked at
    model = tiny_vit()
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    model.head_drop = Reads()
    smi.invert(model, 1, SHORT, checkpoint=tmp_path / "state")
    smi.invert(model, 1, SHORT, checkpoint=tmp_path / "state")
    switch["factor"] = 1.5
    with pytest.raises(smi.CheckpointError, match="answers is"):
        smi.invert(model, 1, SHORT, checkpoint=tmp_path / "state")


def named_score(power, helper=lambda kept: kept):
    def score(model, image, kept, generator):
        return helper(kept).float() ** power

    return score


def other_of_that_name(model, image, kept, generator):
    return -kept.float()


other_of_that_name.__qualname__ = named_score(1).__qualname__


def test_answers_are_alike_up_to_rounding_of_the_largest():
    """A small answer beside a large one may differ by the large one's rounding, but not by more."""
    assert same_answers([1000.0, 1e-5], [1000.0, 2e-5])
    assert same_answers([1.0, 2.0], [1.0 + 1e-7, 2.0])
    assert not same_answers([1.0, 2.0], [1.2, 2.0])
    assert same_answers(None, None) and not same_answers(None, [1.0])


def test_a_score_is_its_code_and_not_its_name(tiny_vit, tmp_path):
    def run(score, path="state"):
        stopping = smi.Stopping(at=(1,), drop=0.5, score=score)
        return smi.invert(tiny_vit(), 1, SHORT, stopping, checkpoint=tmp_path / path)

    run(named_score(1))
    run(named_score(1))
    for other in (named_score(2), other_of_that_name, named_score(1, lambda kept: -kept)):
        with pytest.raises(smi.CheckpointError, match="code of the score"):
            run(other)


SETTINGS = {
    "targets": {"targets": [1, 2]},
    "other targets": {"targets": [2, 1]},
    "a score": {"stopping": smi.Stopping((1,), 0.5, "random")},
    "another score": {"stopping": smi.Stopping((1,), 0.5, "least_attention")},
    "another schedule": {"stopping": smi.Stopping((2,), 0.5, "random")},
    "another fraction": {"stopping": smi.Stopping((1,), 0.4, "random")},
    "precision": {"execution": smi.Execution(precision="bf16")},
    "micro-batches": {"execution": smi.Execution(micro_batch=1)},
    "batches": {"batch_size": 1},
    "snapshots": {"snapshots": (1,)},
    "seed": {"seed": 1},
    "learning rate": {"recipe": smi.recipe(SHORT, learning_rate=0.2)},
    "deviations": {"recipe": smi.published.recipe(SHORT)},
    "plain": {},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_an_inversion_goes_on_under_its_own_settings_alone(tiny_vit, tmp_path, name):
    def run(name):
        return smi.invert(
            tiny_vit(), **{"count": 2, "recipe": SHORT, "checkpoint": tmp_path / "state", **SETTINGS[name]}
        )

    run(name)
    run(name)
    for other in SETTINGS:
        if other != name:
            with pytest.raises(smi.CheckpointError, match=r"^[^\n]*belongs to another run[^\n]*$"):
                run(other)


def frozen_in_part(make):
    student = make(seed=1)
    student.blocks.requires_grad_(False)
    return student


STUDENTS = {
    "plain": lambda make: make(seed=1),
    "dropout": lambda make: make(seed=1, proj_drop_rate=0.1),
    "stochastic depth": lambda make: make(seed=1, drop_path_rate=0.1),
    "frozen in part": frozen_in_part,
    "pooled otherwise": lambda make: make(seed=1, global_pool="max"),
}
TRANSFERS = {
    "plain": {},
    "precision": {"precision": "bf16"},
    "flip": {"flip": 0.0},
    "jitter": {"jitter": 0.1},
    "patches": {"patches": 3},
    "momentum": {"momentum": 0.5},
    "weight decay": {"weight_decay": 0.0},
    "train": {"train": "head"},
}


@pytest.mark.parametrize("name", STUDENTS)
def test_a_transfer_goes_on_with_its_own_student_alone(tiny_vit, tmp_path, name):
    images = smi.invert(tiny_vit(), 2, SHORT)

    def run(name):
        smi.transfer(tiny_vit(), STUDENTS[name](tiny_vit), images, steps=2, checkpoint=tmp_path / "state")

    run(name)
    run(name)
    for other in STUDENTS:
        if other != name:
            with pytest.raises(smi.CheckpointError, match=r"^[^\n]*belongs to another run[^\n]*$"):
                run(other)


def test_a_transfer_goes_on_under_its_own_settings_alone(tiny_vit, tmp_path):
    images = smi.invert(tiny_vit(), 2, SHORT)
    for name, settings in TRANSFERS.items():
        for other, changes in TRANSFERS.items():
            recipe = smi.transfer_recipe(
                "default", steps=1, batch_size=1, **(settings if name == other else changes)
            )
            if name == other:
                smi.transfer(tiny_vit(), tiny_vit(seed=1), images, recipe=recipe, checkpoint=tmp_path / name)
            elif (tmp_path / name).exists():
                with pytest.raises(smi.CheckpointError, match="belongs to another run"):
                    smi.transfer(
                        tiny_vit(), tiny_vit(seed=1), images, recipe=recipe, checkpoint=tmp_path / name
                    )


def test_a_teacher_of_other_pooling_is_another_transfer(tiny_vit, tmp_path):
    images, path = smi.invert(tiny_vit(), 2, SHORT), tmp_path / "state"
    smi.transfer(tiny_vit(), tiny_vit(seed=1), images, steps=1, checkpoint=path)
    other = VisionTransformer(img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=5)
    other.load_state_dict(tiny_vit().state_dict())
    other.eval().pool_include_prefix = True
    with pytest.raises(smi.CheckpointError, match="teacher"):
        smi.transfer(other, tiny_vit(seed=1), images, steps=1, checkpoint=path)

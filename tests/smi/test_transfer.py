"""smi.transfer through its public face: what it learns, seeds, resumption, growing pools, what it refuses."""

import copy
import math

import pytest
import torch
from pools_to_teach_with import BASE, agreement, images, lively, same, weights, with_recipe

import smi


@pytest.mark.parametrize("kept", [None, 5])
@pytest.mark.parametrize("student", [{}, {"embed_dim": 32, "depth": 1, "num_heads": 4}])
def test_student_comes_to_answer_as_the_teacher(tiny_vit, kept, student):
    teacher, fresh, pool = lively(tiny_vit), tiny_vit(seed=1, **student), images(kept=kept)
    recipe = smi.transfer_recipe("default", learning_rate=3e-3, flip=0)
    trained = smi.transfer(teacher, fresh, pool, steps=80, temperature=20, recipe=recipe)
    assert agreement(teacher, trained, pool) < 0.3 * agreement(teacher, fresh, pool)


def test_models_given_are_not_changed(tiny_vit):
    teacher, student = lively(tiny_vit), tiny_vit(seed=1)
    teacher.train(), student.blocks.requires_grad_(False)
    flags = [p.requires_grad for p in student.parameters()]
    before = weights(teacher), weights(student)
    state = torch.get_rng_state()
    trained = smi.transfer(teacher, student, images(), **BASE)
    assert same(weights(teacher), before[0]) and same(weights(student), before[1])
    assert teacher.training and not student.training and not trained.training
    assert all(p.requires_grad for p in teacher.parameters())
    assert [p.requires_grad for p in trained.parameters()] == flags, "flags are the given student's"
    assert torch.get_rng_state().equal(state)
    assert not same(weights(trained), before[1])


def test_what_the_student_has_frozen_stays_as_it_was(tiny_vit):
    teacher, student = lively(tiny_vit), tiny_vit(seed=1)
    student.blocks.requires_grad_(False)
    trained = weights(smi.transfer(teacher, student, images(), **BASE))
    moved = {name for name, value in weights(student).items() if not value.equal(trained[name])}
    assert moved == {name for name, p in student.named_parameters() if p.requires_grad}


def test_a_student_frozen_as_a_whole_is_refused_but_for_its_head(tiny_vit):
    teacher, student = lively(tiny_vit), tiny_vit(seed=1).requires_grad_(False)
    with pytest.raises(smi.InvalidSetting, match=r"every weight of the student is frozen .*train='head'"):
        smi.transfer(teacher, student, images(), **BASE)
    trained = smi.transfer(teacher, student, images(), **with_recipe(train="head"))
    assert not trained.head.weight.equal(student.head.weight)


def test_student_and_teacher_may_be_one_model(tiny_vit):
    model = lively(tiny_vit)
    assert smi.transfer(model, model, images(), **BASE) is not model


def test_head_alone_is_trained_on_a_frozen_backbone(tiny_vit):
    teacher, student = lively(tiny_vit), tiny_vit(seed=1)
    settings = with_recipe(train="head", optimizer="sgd", learning_rate=1e-3)
    trained = weights(smi.transfer(teacher, student, images(), **settings))
    moved = {name for name, value in weights(student).items() if not value.equal(trained[name])}
    assert moved == {"head.weight", "head.bias"}


def test_same_seed_same_bits_other_seed_other_bits(tiny_vit):
    teacher, student = lively(tiny_vit), tiny_vit(seed=1, drop_path_rate=0.3, proj_drop_rate=0.1)
    first = weights(smi.transfer(teacher, student, images(), **BASE))
    torch.manual_seed(5)
    assert same(first, weights(smi.transfer(teacher, student, images(), **BASE)))
    assert not same(first, weights(smi.transfer(teacher, student, images(), **{**BASE, "seed": 4})))


@pytest.mark.parametrize("stops_at", [0, 1, 3, 5])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_interrupted_and_resumed_ends_in_the_same_bits(tiny_vit, tmp_path, optimizer, stops_at):
    teacher, student = lively(tiny_vit), tiny_vit(seed=1, proj_drop_rate=0.1)
    settings = with_recipe(optimizer=optimizer, learning_rate=1e-3, rounds=2)
    settings["evaluate"] = lambda model: {"bias": float(model.head.bias[0])}
    sets = [images(seed=0), images(seed=1)]
    whole = smi.distil(teacher, student, sets, **settings)
    calls = iter(range(100))
    halt = {"should_stop": lambda: next(calls) == stops_at}
    with pytest.raises(smi.Interrupted, match=f"step {stops_at} of 6"):
        smi.distil(teacher, student, sets, **settings, checkpoint=tmp_path / "c", **halt)
    resumed = smi.distil(teacher, student, sets, **settings, checkpoint=tmp_path / "c")
    assert same(weights(resumed.student), weights(whole.student))
    assert resumed.curve == whole.curve
    finished = smi.distil(teacher, student, sets, **settings, checkpoint=tmp_path / "c")
    assert same(weights(finished.student), weights(whole.student)) and finished.curve == whole.curve


def test_a_checkpoint_of_another_run_is_refused(tiny_vit, tmp_path):
    teacher, student, path = lively(tiny_vit), tiny_vit(seed=1), tmp_path / "c"
    smi.transfer(teacher, student, images(), **BASE, checkpoint=path)
    with pytest.raises(smi.CheckpointError, match=r"temperature is 20\.0 there"):
        smi.transfer(teacher, student, images(), **BASE, temperature=4.0, checkpoint=path)
    with pytest.raises(smi.CheckpointError, match="pool"):
        smi.transfer(teacher, student, images(seed=9), **BASE, checkpoint=path)
    with pytest.raises(smi.CheckpointError, match="student"):
        smi.transfer(teacher, tiny_vit(seed=2), images(), **BASE, checkpoint=path)


def test_curve_has_what_evaluate_says_at_the_steps_asked_for(tiny_vit):
    modes = []

    def evaluate(model):
        modes.append(model.training)
        return {"top1": 1.5}

    run = smi.distil(lively(tiny_vit), tiny_vit(seed=1), images(), **{**BASE, "steps": 5}, evaluate=evaluate)
    assert [entry["step"] for entry in run.curve] == [0, 2, 4, 5]
    assert modes == [False] * 4
    assert run.curve[0]["loss"] is None and all(math.isfinite(e["loss"]) for e in run.curve[1:])
    assert all(entry["top1"] == 1.5 and entry["pool"] == 6 for entry in run.curve)
    assert run.seconds > 0


def test_the_pool_grows_by_rounds(tiny_vit):
    teacher, student = lively(tiny_vit), tiny_vit(seed=1)
    sets = [images(count=4, seed=seed) for seed in range(3)]
    settings = with_recipe(rounds=3, evaluate_every=1)
    grown = smi.distil(teacher, student, sets, **settings, evaluate=lambda model: {})
    assert [entry["pool"] for entry in grown.curve] == [4, 4, 4, 8, 8, 12, 12]
    # what comes in round 2 cannot have touched rounds 0 and 1
    other = [*sets[:2], images(count=4, seed=9)]
    again = smi.distil(teacher, student, other, **settings, evaluate=lambda model: {})
    losses = [[entry["loss"] for entry in run.curve] for run in (grown, again)]
    assert losses[0][:5] == losses[1][:5] and losses[0] != losses[1]


def test_files_give_the_bits_that_memory_gives(tiny_vit, tmp_path):
    teacher, student = lively(tiny_vit), tiny_vit(seed=1)
    sets = [images(seed=seed) for seed in range(2)]
    for index, one in enumerate(sets):
        one.save(tmp_path / f"{index}.safetensors")
    paths = [tmp_path / f"{index}.safetensors" for index in range(2)]
    one, other = (weights(smi.transfer(teacher, student, pool, **BASE)) for pool in (sets, paths))
    assert same(one, other)


def test_a_pool_smaller_than_the_batch_is_shown_whole(tiny_vit):
    smi.transfer(lively(tiny_vit), tiny_vit(seed=1), images(count=2), **BASE)


def test_progress_reaches_the_end(tiny_vit):
    seen = []
    smi.transfer(lively(tiny_vit), tiny_vit(), images(), **BASE, progress=lambda *said: seen.append(said))
    assert seen[-1][:2] == (6, 6) and math.isfinite(seen[-1][2]["loss"])


def test_nan_stops_with_the_step_and_keeps_the_state_before(tiny_vit, tmp_path):
    teacher, student = lively(tiny_vit), tiny_vit(seed=1)
    broken = images(seed=1)
    sets, path = [images(), broken], tmp_path / "c"
    settings = with_recipe(rounds=2, optimizer="sgd", learning_rate=1e30, momentum=0)
    with pytest.raises(smi.NonFiniteLoss, match=r"is (nan|inf) at step \d of 6 .*learning rate 1e\+30"):
        smi.transfer(teacher, student, sets, **settings, checkpoint=path)
    from safetensors.torch import load_file

    assert all(torch.isfinite(value).all() for value in load_file(path).values())


def test_a_teacher_with_nan_weights_is_named_at_step_0(tiny_vit):
    teacher = lively(tiny_vit)
    with torch.no_grad():
        teacher.head.weight[0, 0] = float("nan")
    with pytest.raises(smi.NonFiniteLoss, match="step 0"):
        smi.transfer(teacher, tiny_vit(), images(), **BASE)


def test_only_the_kept_patches_are_seen(tiny_vit):
    """Pixels of stopped patches may hold anything."""
    teacher, student, pool = lively(tiny_vit), tiny_vit(seed=1), images()
    noise = smi.SyntheticImages(torch.rand_like(pool.pixels), pool.targets, pool.kept, pool.patch_size)
    grid = pool.grid
    patched = smi.geometry.patchify(noise.pixels, grid)
    patched[pool.mask()] = smi.geometry.patchify(pool.pixels, grid)[pool.mask()]
    other = copy.copy(pool)
    other.pixels = smi.geometry.unpatchify(patched, grid)
    assert not other.pixels.equal(pool.pixels)
    one, two = (weights(smi.transfer(teacher, student, given, **BASE)) for given in (pool, other))
    assert same(one, two)


@pytest.mark.parametrize(
    "drop",
    [
        {"drop_path_rate": 0.3},  # of two blocks, all of it in the last one
        {"depth": 1, "attn_drop_rate": 0.5},
        {"depth": 1, "proj_drop_rate": 0.5},
        {"pos_drop_rate": 0.5},
        {"patch_drop_rate": 0.5},
    ],
    ids=lambda drop: next(name for name in drop if name != "depth"),
)
def test_every_drop_of_a_student_is_drawn(tiny_vit, drop):
    teacher, depth = lively(tiny_vit), drop.get("depth", 2)
    plain = weights(smi.transfer(teacher, tiny_vit(seed=1, depth=depth), images(), **BASE))
    dropped = weights(smi.transfer(teacher, tiny_vit(seed=1, **drop), images(), **BASE))
    assert not same(plain, dropped)


def test_dropout_is_drawn_by_the_seed(tiny_vit):
    """Of a pool of one image that is neither flipped nor moved, nothing else is drawn."""
    recipe = with_recipe(batch_size=1, flip=0.0, jitter=0.0)
    student = tiny_vit(seed=1, proj_drop_rate=0.3)
    taught = [
        weights(
            smi.transfer(lively(tiny_vit), student, images().select(slice(0, 1)), **{**recipe, "seed": seed})
        )
        for seed in (0, 0, 1)
    ]
    assert same(taught[0], taught[1]) and not same(taught[0], taught[2])


def test_torch_s_own_generator_goes_on_where_it_was(tiny_vit):
    torch.manual_seed(11)
    wanted = torch.rand(3)
    torch.manual_seed(11)
    smi.transfer(lively(tiny_vit), tiny_vit(seed=1, proj_drop_rate=0.1), images(), **BASE)
    assert torch.rand(3).equal(wanted) and torch.initial_seed() == 11


def test_a_callers_autocast_is_not_the_transfers(tiny_vit):
    plain = weights(smi.transfer(lively(tiny_vit), tiny_vit(seed=1), images(), **BASE))
    with torch.autocast("cpu", torch.bfloat16):
        assert same(plain, weights(smi.transfer(lively(tiny_vit), tiny_vit(seed=1), images(), **BASE)))


def test_a_head_put_on_later_counts(tiny_vit):
    student = tiny_vit(seed=1)
    student.head = torch.nn.Linear(16, 1)
    with pytest.raises(smi.UnsupportedModel, match="classes"):
        smi.transfer(lively(tiny_vit), student, images(), **BASE)

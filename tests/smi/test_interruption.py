"""Ctrl-C and threads: nothing is lost, and a model is given back as it was."""

import threading

import pytest
import torch

import smi

SHORT = smi.recipe("deepinversion", iterations=8, learning_rate=0.1)
STOPPING = smi.Stopping(at=(2, 5), drop=0.3)


def of_a_callback(after: int):
    calls = iter(range(1000))

    def refuse() -> bool:
        if next(calls) == after:
            raise KeyboardInterrupt
        return False

    return refuse


@pytest.mark.parametrize("after", [0, 2, 7])
def test_ctrl_c_in_a_callback_saves_the_state_too(tiny_vit, tmp_path, after):
    model, settings = tiny_vit(), {"recipe": SHORT, "stopping": STOPPING, "seed": 1}
    whole = smi.invert(model, 2, **settings)
    settings["checkpoint"] = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt, match=f"iteration {after} of 8; the state is saved: call it again"):
        smi.invert(model, 2, **settings, should_stop=of_a_callback(after))
    asked = []
    images = smi.invert(model, 2, **settings, should_stop=lambda: bool(asked.append(1)))
    assert images.pixels.equal(whole.pixels) and len(asked) == 8 - after


def test_ctrl_c_in_a_callback_of_a_transfer_saves_its_state_too(tiny_vit, tmp_path):
    model, settings = tiny_vit(), {"steps": 8, "batch_size": 2}
    images = smi.invert(model, 4, SHORT)
    whole = smi.transfer(model, tiny_vit(seed=1), images, **settings)
    settings["checkpoint"] = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt, match="step 3 of 8; the state is saved: call it again"):
        smi.transfer(model, tiny_vit(seed=1), images, **settings, should_stop=of_a_callback(3))
    asked = []
    trained = smi.transfer(
        model, tiny_vit(seed=1), images, **settings, should_stop=lambda: bool(asked.append(1))
    )
    assert len(asked) == 5
    assert all(a.equal(b) for a, b in zip(trained.parameters(), whole.parameters(), strict=True))


def test_half_an_iteration_is_not_saved(tiny_vit, tmp_path):
    def score(model, image, kept, generator):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as told:
        smi.invert(tiny_vit(), 1, SHORT, smi.Stopping((2,), 0.5, score), checkpoint=tmp_path / "state")
    assert not str(told.value) and not (tmp_path / "state").exists()


def test_two_threads_leave_the_model_as_it_was_and_do_not_mix(tiny_vit):
    """The first begins before the second and ends before it; both watch every block by hooks."""
    model = tiny_vit().train()
    model.head.requires_grad_(False)
    recipe = smi.recipe("psaq", iterations=6, warmup=1)
    alone = [smi.invert(model, 2, recipe, seed=seed).pixels for seed in range(2)]
    found, begun, ended = {}, threading.Event(), threading.Event()

    def first():
        found[0] = smi.invert(model, 2, recipe, seed=0, should_stop=lambda: bool(begun.set())).pixels
        ended.set()

    def second():
        begun.wait(20)
        calls = iter(range(100))
        found[1] = smi.invert(
            model, 2, recipe, seed=1, should_stop=lambda: next(calls) == 5 and not ended.wait(20)
        ).pixels

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[seed].equal(alone[seed]) for seed in range(2))
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad == (not n.startswith("head.")) for n, p in model.named_parameters())


def test_two_transfers_in_threads_draw_their_own_dropout(tiny_vit):
    teacher, student = tiny_vit(), tiny_vit(seed=1, proj_drop_rate=0.3)
    images, settings = smi.invert(teacher, 4, SHORT), {"steps": 12, "batch_size": 2}
    alone = [smi.transfer(teacher, student, images, **settings, seed=seed) for seed in range(2)]
    found = {}
    threads = [
        threading.Thread(
            target=lambda seed=seed: found.update(
                {seed: smi.transfer(teacher, student, images, **settings, seed=seed)}
            )
        )
        for seed in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(2):
        assert torch.equal(found[seed].head.weight, alone[seed].head.weight)

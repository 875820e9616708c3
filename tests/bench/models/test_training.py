"""Teachers: settings, determinism, and training that goes on after a stop to the same bits."""

import pytest
import torch

import smi
from bench.errors import BenchError
from bench.models import cnn, training
from smi import execution


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(24, 3, 16, 16, generator=generator), torch.randint(0, 5, (24,), generator=generator)


def train(
    model, data, path, settings, seed=0, device="cpu", stop=lambda: False, tell=lambda *_: None, **options
):
    """As training.train, quietly."""
    return training.train(
        *(model, *data, training.expand(settings), seed),
        normalise=lambda image: image - 0.5,
        device=device,
        checkpoint=path,
        progress=tell,
        should_stop=stop,
        **options,
    )


def run(model, data, path, seed=0, stop_after=None, changes=None, **options):
    """Train for 3 epochs of 3 steps; returns the steps that were reported. changes: of the settings."""
    seen = []
    train(
        *(model, data, path, {"epochs": 3, "batch_size": 8, "shift": 1, **(changes or {})}, seed),
        stop=lambda: stop_after is not None and len(seen) >= stop_after,
        tell=lambda done, total, figures: seen.append((done, total)),
        **options,
    )
    return seen


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_stopped_and_continued_ends_in_the_same_bits(tmp_path, tiny_vit, data):
    whole, parts = tiny_vit(), tiny_vit()
    assert run(whole, data, tmp_path / "whole") == [(step, 9) for step in range(1, 10)]
    for stop in (4, 1):
        with pytest.raises(smi.Interrupted, match="it continues from there"):
            run(parts, data, tmp_path / "state", stop_after=stop)
        parts = tiny_vit(seed=5)  # a new process knows nothing but the file
    assert run(parts, data, tmp_path / "state")[0] == (6, 9)
    assert same(whole, parts)


def test_seeds_decide_and_checkpoints_do_not(tmp_path, tiny_vit, data):
    first, again, other = tiny_vit(), tiny_vit(), tiny_vit()
    run(first, data, tmp_path / "first")
    run(again, data, tmp_path / "again", checkpoint_seconds=0.0)  # saves before every step
    run(other, data, tmp_path / "other", seed=1)
    assert same(first, again) and not same(first, other)
    assert (tmp_path / "again").exists() and not (tmp_path / "first").exists()


def test_a_damaged_checkpoint_is_named(tmp_path, tiny_vit, data):
    path = tmp_path / "state"
    path.write_bytes(b"half")
    with pytest.raises(smi.CheckpointError, match="state cannot be continued from"):
        run(tiny_vit(), data, path)


def test_a_loss_that_explodes_is_named(tmp_path, tiny_vit, data):
    model = tiny_vit()
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(smi.NonFiniteLoss, match="loss is nan at step 0"):
        run(model, data, tmp_path / "state")


def test_shifts_move_pictures_and_let_black_in():
    pictures = torch.ones(200, 1, 6, 6)
    pictures[:, :, 2, 3] = 7.0
    shifted = training.random_shift(pictures, 2, torch.Generator().manual_seed(0))
    assert shifted.shape == pictures.shape
    places = (shifted == 7).flatten(1).nonzero()
    assert len(places) == 200  # the mark is never lost, and moves up to 2 pixels each way
    rows, columns = places[:, 1] // 6 - 2, places[:, 1] % 6 - 3
    assert set(rows.tolist()) == set(columns.tolist()) == {-2, -1, 0, 1, 2}
    moved = rows[0].abs() * 6 + columns[0].abs() * 6 - rows[0].abs() * columns[0].abs()
    assert (shifted[0] == 0).sum() == moved
    assert torch.equal(training.random_shift(pictures, 0, torch.Generator()), pictures)


@pytest.mark.parametrize(
    "settings",
    [
        {"epoch": 3},
        {"epochs": 0},
        {"epochs": 2.5},
        {"lr": "big"},
        {"lr": -1},
        {"betas": 0.9},
        {"betas": [0.9]},
        {"warmup": 2},
        {"batch_size": True},
        {"flip": 1.5},
        {"label_smoothing": -0.1},
        {"precision": "fp16"},
    ],
)
def test_senseless_settings_are_refused(settings):
    with pytest.raises(BenchError, match=f"teacher training: .*{next(iter(settings))}"):
        training.expand(settings)


def test_settings_are_written_out_in_full():
    assert training.expand({"betas": (0.8, 0.9)})["betas"] == [0.8, 0.9]
    assert set(training.expand({})) == set(training.DEFAULTS) - set(training.LATER)
    flipped = training.expand({"flip": 0.5, "precision": "bf16", "label_smoothing": 0.0})
    assert flipped["flip"] == 0.5 and flipped["precision"] == "bf16" and "label_smoothing" not in flipped


def test_flips_mirror_some_pictures_whole():
    pictures = torch.arange(400 * 8.0).reshape(400, 1, 2, 4)
    shown = training.random_flip(pictures, 0.5, torch.Generator().manual_seed(0))
    same = (shown == pictures).flatten(1).all(1)
    mirrored = (shown == pictures.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all() and 120 < int(mirrored.sum()) < 280
    assert torch.equal(training.random_flip(pictures, 1.0, torch.Generator()), pictures.flip(3))


def test_bf16_keeps_weights_in_float32_and_changes_what_is_learnt(tmp_path, tiny_vit, data):
    first, second = tiny_vit(), tiny_vit()
    second.load_state_dict(first.state_dict())
    run(first, data, tmp_path / "a")
    run(second, data, tmp_path / "b", changes={"precision": "bf16", "flip": 0.5, "label_smoothing": 0.1})
    assert {p.dtype for p in second.parameters()} == {torch.float32}
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_model_learns_its_tutors_answers(tmp_path):
    """Labels, of which none is right, have no part in it; blended pictures are what both see."""
    pictures = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.full((64,), 2)
    seen = []

    def tutor(shown):
        seen.append(shown.clone())
        bright = shown.mean((1, 2, 3)) - 0.5
        return torch.stack([400 * bright, -400 * bright, torch.full_like(bright, -50)], 1)

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    settings = {"epochs": 60, "batch_size": 16, "lr": 0.05, "shift": 0, "mix": 0.5}
    curve = train(model, (pictures, labels), tmp_path / "state", settings, tutor=tutor)
    assert len(curve) == 60 and curve[-1] < 0.5 * curve[0]
    wanted = (pictures.mean((1, 2, 3)) < 0.5).long()
    assert (model(pictures - 0.5).argmax(1) == wanted).float().mean() > 0.9
    plain = {tuple(one.flatten().tolist()) for one in pictures}
    blended = [any(tuple(one.flatten().tolist()) not in plain for one in batch) for batch in seen]
    assert 0.3 < sum(blended) / len(blended) < 0.7


def test_a_cnn_trains_and_its_start_depends_on_the_seed(tmp_path):
    one, same, other = (cnn.PlainCNN(8, 1, 2, [4, 8]) for _ in range(3))
    for model, seed in ((one, 0), (same, 0), (other, 1)):
        cnn.initialise(model, seed)
    assert all(a.equal(b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not one.head.weight.equal(other.head.weight)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    pictures = torch.rand(64, 1, 8, 8, generator=generator) * 0.5 + 0.5 * labels[:, None, None, None]
    settings = {"epochs": 8, "batch_size": 16, "lr": 0.01, "shift": 0}
    train(one, (pictures, labels), tmp_path / "state", settings)
    assert (one(pictures - 0.5).argmax(1) == labels).float().mean() > 0.9


@pytest.mark.gpu
def test_a_recorded_training_ends_near_a_plain_one(tiny_vit, tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    pictures, labels = torch.rand(64, 3, 16, 16, generator=generator), torch.arange(64) % 5
    ended = []
    for recorded in (True, False):
        model = tiny_vit()
        if not recorded:
            monkeypatch.setattr(execution, "record_cuda_graph", lambda function: function)
        settings = {"epochs": 3, "batch_size": 16, "lr": 1e-3}
        train(model, (pictures, labels), tmp_path / f"state {recorded}", settings, device="cuda")
        ended.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ended, rtol=0, atol=2e-3)

"""Fine-tuning a teacher: what it learns, what stays as it is, seeds, resumption, what it refuses."""

import pytest
import torch
from torch.utils.data import Dataset

import smi
from bench.errors import BenchError
from bench.models import fine_tuning
from bench.tasks.scoring import top1


class Shades(Dataset):
    """Pictures whose class is how bright they are, a little noisy."""

    def __init__(self, count=40, classes=2, size=16):
        random = torch.Generator().manual_seed(0)
        self.labels = [index % classes for index in range(count)]
        noise = 0.1 * torch.rand(count, 3, size, size, generator=random)
        self.pictures = [noise[i] + 0.8 * label / (classes - 1) for i, label in enumerate(self.labels)]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.pictures[index], self.labels[index]


@pytest.fixture
def tune(tiny_vit, tmp_path):
    """A function that fine-tunes a fresh model and returns it; settings and arguments may be changed."""

    def run(checkpoint="state", should_stop=lambda: False, seed=0, model=None, **settings):
        model = tiny_vit(num_classes=2) if model is None else model
        chosen = fine_tuning.expand({"epochs": 3, "batch_size": 8, "lr": 0.01, "shift": 2, **settings})
        fine_tuning.fine_tune(
            *(model, Shades(), chosen, seed),
            device="cpu",
            checkpoint=tmp_path / checkpoint,
            progress=lambda *said: None,
            should_stop=should_stop,
            checkpoint_seconds=0.0,
        )
        return model

    return run


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_batch_larger_than_the_data_is_refused_not_shrunk(tune):
    pictures = len(Shades())
    with pytest.raises(BenchError, match=f"batch_size is {pictures + 1}, .* allowed: up to {pictures}"):
        tune(batch_size=pictures + 1)


@pytest.mark.parametrize("train", ["head", "all"])
def test_it_learns_to_tell_classes_apart(tune, train):
    model = tune(train=train)
    assert not model.training and all(p.requires_grad for p in model.parameters())
    assert top1(model, Shades(), "cpu") > 95


def test_a_head_is_fine_tuned_on_a_backbone_that_stays(tune, tiny_vit):
    before, after = weights(tiny_vit(num_classes=2)), weights(tune(train="head"))
    assert {name for name in before if not before[name].equal(after[name])} == {"head.weight", "head.bias"}


@pytest.mark.parametrize("stops_at", [0, 1, 6, 14])
def test_interrupted_and_resumed_ends_in_the_same_bits(tune, tiny_vit, stops_at):
    """15 steps, 5 an epoch; dropout on, so that its random numbers must come back too."""

    def fresh():
        return tiny_vit(num_classes=2, proj_drop_rate=0.2)

    whole = weights(tune("whole", model=fresh(), train="all"))
    calls = iter(range(100))
    with pytest.raises(smi.Interrupted, match=f"step {stops_at} of 15"):
        tune(should_stop=lambda: next(calls) == stops_at, model=fresh(), train="all")
    resumed = weights(tune(model=fresh(), train="all"))
    assert all(whole[name].equal(resumed[name]) for name in whole)


def test_another_seed_gives_another_model(tune):
    one, other = (weights(tune(f"seed{seed}", seed=seed)) for seed in range(2))
    assert not one["head.weight"].equal(other["head.weight"])


def test_nan_stops_with_the_step(tune, tiny_vit):
    model = tiny_vit(num_classes=2)
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    with pytest.raises(smi.NonFiniteLoss, match="step 0 of 15"):
        tune(model=model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 1}, "unknown setting 'learning_rate'; allowed: train, epochs"),
        ({"train": "backbone"}, "train is 'backbone'; allowed: head, all"),
        ({"epochs": 0}, "at least 1"),
        ({"epochs": 1.5}, "a whole number"),
        ({"lr": "fast"}, "lr is 'fast'; allowed: a number"),
        ({"flip": 1.5}, "flip is 1.5; allowed: a number from 0 to 1"),
        ({"precision": "fp16"}, "allowed: fp32, tf32, bf16"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(BenchError, match=message):
        fine_tuning.expand(settings)


def test_mirrored_pictures_are_mirrored_whole():
    pictures = torch.rand(6, 3, 5, 7)
    flipped = fine_tuning.augment(pictures, 1.0, 0, torch.Generator().manual_seed(0))
    assert flipped.equal(pictures.flip(3))
    assert fine_tuning.augment(pictures, 0.0, 0, torch.Generator()).equal(pictures)

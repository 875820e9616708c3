"""What the loop hands to the loss terms and to a student, and what it counts as its seconds."""

import time
from dataclasses import replace

import pytest
import torch
from torch import nn

import smi
from smi import objectives

SHORT = smi.recipe("deepinversion", iterations=4, learning_rate=0.1)


@pytest.fixture
def chances():
    """A term of the model's output that notes the run's chance."""
    seen = []

    @objectives._term()
    def drawn(step):
        seen.append(step.chance)
        return step.logits.square().mean() * step.chance

    yield seen
    del objectives.TERMS["drawn"], objectives.NEEDS["drawn"]


def test_terms_of_the_models_output_get_the_chance_of_their_batch(tiny_vit, chances):
    recipe = smi.Recipe(name="own", objective=[["drawn", 1.0]], iterations=3)
    smi.invert(tiny_vit(), 2, recipe, batch_size=1)
    assert len(chances) == 6 and len({*chances}) == 2 and all(0 < chance < 1 for chance in chances)
    assert chances[:3] == [chances[0]] * 3


class Records(nn.Module):
    """A student that keeps what it was shown, and how that is normalised."""

    def __init__(self, mean, std):
        super().__init__()
        self.layer = nn.Linear(3 * 16 * 16, 5)
        self.pretrained_cfg = {"input_size": (3, 16, 16), "mean": mean, "std": std}
        self.seen = []

    def forward(self, images):
        self.seen.append(images.detach().clone())
        return self.layer(images.flatten(1))


@pytest.mark.parametrize("stopping", [None, smi.Stopping(at=(1,), drop=0.5)])
def test_a_student_sees_the_images_in_its_own_normalisation(tiny_vit, stopping):
    model = tiny_vit()
    model.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    recipe = smi.Recipe(
        name="own", objective=[["cross_entropy", 1.0], ["adaptive", 1e-6]], iterations=2, jitter=0, flip=0
    )
    seen = []
    for mean, std in (((0.5,) * 3, (0.5,) * 3), ((0.1, 0.2, 0.3), (0.4, 0.3, 0.2))):
        student = Records(mean, std)
        smi.invert(model, 2, replace(recipe, student=student), stopping)
        shape = (1, 3, 1, 1)
        seen.append(student.seen[0] * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape))
    torch.testing.assert_close(*seen)  # the same pixels


def test_writing_checkpoints_and_reporting_are_not_the_inversions_seconds(tiny_vit, tmp_path, monkeypatch):
    plain = smi.checkpoint.save_tensors
    monkeypatch.setattr(smi.checkpoint, "save_tensors", lambda *given: (time.sleep(0.2), plain(*given)))
    began = time.perf_counter()
    images = smi.invert(tiny_vit(), 1, SHORT, checkpoint=smi.Checkpoint(tmp_path / "state", seconds=0))
    passed = time.perf_counter() - began
    assert passed - images.made["seconds"] > 4 * 0.2
    assert sum(stage["iterations"] for stage in images.made["stages"]) == 4


def test_the_history_is_the_mean_of_all_batches(tiny_vit):
    model = tiny_vit()
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    recipe = smi.Recipe(name="own", objective=[["cross_entropy", 1.0]], iterations=3, jitter=0, flip=0)
    images = smi.invert(model, 4, recipe, batch_size=2, targets=[0, 1, 2, 3], snapshots=(0, 1, 2))
    history, shots = images.made["history"], images.traces["snapshot_pixels"]
    mean, std = smi.vit.normalisation(model)
    assert history["iteration"] == [0, 1, 2]
    for iteration in (1, 2):  # the first is noise, which the range [0, 1] cuts off
        with torch.no_grad():
            logits = model((shots[iteration] - mean) / std)
        wanted = float(nn.functional.cross_entropy(logits, images.targets))
        assert history["loss"][iteration] == pytest.approx(wanted, rel=1e-3)


def test_each_batch_has_noise_and_targets_of_its_own(tiny_vit):
    images = smi.invert(tiny_vit(num_classes=1000), 6, SHORT, batch_size=2, snapshots=(0,))
    noise = images.traces["snapshot_pixels"][0]
    assert len({row.numpy().tobytes() for row in noise}) == 6
    assert len({*images.targets.tolist()}) > 3


def test_the_random_score_draws_anew_for_each_image_batch_and_stop(tiny_vit):
    stopping = smi.Stopping(at=(1, 2), drop=(0.25, 0.25), score="random")
    images = smi.invert(tiny_vit(img_size=32), 4, SHORT, stopping, batch_size=2)
    first, second = images.traces["importance"]
    assert len({row.numpy().tobytes() for row in first}) == 4
    still_in = ~second.isnan()
    assert not torch.equal(first[still_in], second[still_in])
    # one draw for all stops would keep the order of the first: what stays then are its largest
    ranks = [first[image][still_in[image]].argsort() for image in range(4)]
    assert not all(r.equal(second[i][still_in[i]].argsort()) for i, r in enumerate(ranks))


def test_images_are_mirrored_as_often_as_the_recipe_says(tiny_vit):
    """A term that reads the view: never mirrored, always, and in between."""
    seen = []

    @objectives._term(pixels=True)
    def watch(step, *, on: objectives.Where = "view"):
        seen.append((step.view.detach().clone(), step.image.detach().clone()))
        return step.image.sum() * 0

    try:
        for flip, times in ((0.0, {0}), (1.0, {40}), (0.5, set(range(10, 31)))):
            seen.clear()
            recipe = smi.Recipe(
                name="own",
                objective=[["watch", 1.0, {"on": "view"}], ["cross_entropy", 1.0]],
                iterations=40,
                jitter=0,
                flip=flip,
            )
            smi.invert(tiny_vit(), 1, recipe)
            assert sum(view.equal(image.flip(3)) for view, image in seen) in times
            assert all(view.equal(image) or view.equal(image.flip(3)) for view, image in seen)
    finally:
        del objectives.TERMS["watch"], objectives.NEEDS["watch"]
        objectives.PIXEL_TERMS.remove("watch")

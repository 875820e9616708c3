"""What a checkpoint holds: the running batch's whole state, of finished ones no more than their images need."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import smi
from smi.files import load_tensors
from smi.state import Finished, InversionConfig, State
from smi.vit import adapt

SHORT = smi.recipe("deepinversion", iterations=12, learning_rate=0.1)
STOPPING = smi.Stopping(at=(3, 6), drop=(0.3, 0.5))  # 16 -> 11 -> 5 patches
OF_A_FINISHED_BATCH = {"image", "targets", "losses", "kept", "importance.0", "importance.1"}


def parts(path) -> list[set[str]]:
    """Names of the tensors of each batch."""
    names = load_tensors(path, smi.CheckpointError)[0]
    found: dict[str, set[str]] = {}
    for name in names:
        part, _, tensor = name.partition(".")
        found.setdefault(part, set()).add(tensor)
    return [found[str(position)] for position in range(len(found))]


def test_finished_batches_keep_no_optimiser_and_no_random_numbers(tiny_vit, tmp_path):
    path, calls = tmp_path / "state", iter(range(100))
    settings = {"count": 6, "recipe": SHORT, "stopping": STOPPING, "batch_size": 2, "checkpoint": path}
    with pytest.raises(smi.Interrupted):
        smi.invert(tiny_vit(), **settings, should_stop=lambda: next(calls) >= 2 * 12 + 8)
    *finished, running = parts(path)
    assert finished == [OF_A_FINISHED_BATCH] * 2
    assert {"adam.exp_avg", "adam.exp_avg_sq", "variable", "jitter_generator"} <= running
    smi.invert(tiny_vit(), **settings)
    assert parts(path) == [OF_A_FINISHED_BATCH] * 3


def test_a_whole_run_leaves_little_more_than_the_bytes_of_its_images(tiny_vit, tmp_path):
    path = tmp_path / "state"
    recipe = smi.recipe(SHORT, iterations=2)
    images = smi.invert(tiny_vit(img_size=64), 8, recipe, batch_size=4, checkpoint=path)
    assert path.stat().st_size < 1.1 * images.pixels.nbytes


def test_a_finished_batch_comes_back_as_it_was(tiny_vit):
    state = State.start(adapt(tiny_vit()), InversionConfig(SHORT), 2, None, (1, 2), "cpu")
    state.snapshot(16)
    state.stages.append({"patches": 16, "iterations": 12, "seconds": 1.0})
    one = state.finish()
    other = Finished.from_state_dict(one.state_dict())
    assert other.image.equal(one.image) and other.targets.equal(one.targets) and other.kept is None
    assert other.stages == one.stages and other.traces.snapshots[0].equal(one.traces.snapshots[0])


def test_a_path_alone_is_a_checkpoint(tiny_vit, tmp_path):
    for checkpoint in (tmp_path / "path", str(tmp_path / "text"), smi.Checkpoint(tmp_path / "value")):
        smi.invert(tiny_vit(), 1, smi.recipe(SHORT, iterations=2), checkpoint=checkpoint)
    assert {path.name for path in tmp_path.iterdir()} == {"path", "text", "value"}


def test_a_file_of_another_format_is_refused(tiny_vit, tmp_path, monkeypatch):
    settings = {"recipe": smi.recipe(SHORT, iterations=2), "checkpoint": tmp_path / "state"}
    with monkeypatch.context() as older:
        older.setattr("smi.checkpoint.FORMAT", 1)
        smi.invert(tiny_vit(), 1, **settings)
    with pytest.raises(smi.CheckpointError, match="format is 1 there, 2 here"):
        smi.invert(tiny_vit(), 1, **settings)


def test_extra_tensors_and_moments_are_saved(tiny_vit):
    """What a loop of another kind carries along, and Adam's moments, on the way to a fresh state."""
    tokens = adapt(tiny_vit())
    one, other = (State.start(tokens, InversionConfig(SHORT), 2, None, (s, s), "cpu") for s in (1, 2))
    one.extra["importance"] = torch.rand(2, 16)
    one.variable.grad = torch.ones_like(one.variable)
    one.optimizer.step()
    other.load_state_dict(one.state_dict(), tokens.grid)
    assert other.extra["importance"].equal(one.extra["importance"]) and other.image.equal(one.image)
    mine, theirs = (state.optimizer.state[state.variable] for state in (one, other))
    assert all(mine[name].equal(theirs[name]) for name in ("step", "exp_avg", "exp_avg_sq"))


@pytest.mark.parametrize("stopping", [None, smi.Stopping(at=(2,), drop=0.3, score="random")])
@pytest.mark.parametrize("stop_after", range(4))
def test_small_images_end_in_the_same_bits_wherever_their_tensors_lay_in_the_file(
    tmp_path, stopping, stop_after
):
    model = VisionTransformer(
        img_size=(4, 8), patch_size=(1, 4), in_chans=1, embed_dim=8, depth=1, num_heads=1, num_classes=4
    ).eval()
    model.pretrained_cfg = {"mean": (0.5,), "std": (0.25,)}
    settings = {"count": 3, "recipe": smi.recipe(SHORT, iterations=4), "stopping": stopping, "batch_size": 2}
    for seed in range(4):
        whole, asked = smi.invert(model, seed=seed, **settings), iter(range(100))
        with pytest.raises(smi.Interrupted):
            stop = {"should_stop": lambda asked=asked: next(asked) == stop_after}
            smi.invert(model, seed=seed, **settings, checkpoint=tmp_path / f"state{seed}", **stop)
        assert smi.invert(model, seed=seed, **settings, checkpoint=tmp_path / f"state{seed}") == whole

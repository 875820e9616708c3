"""What people see who wait, and what Ctrl-C leaves."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading

import pytest
import torch

import smi
from smi import loop
from smi.progress import shown

RUN = """
import smi, torch
from timm.models.vision_transformer import VisionTransformer
torch.manual_seed(0)
model = VisionTransformer(img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=5).eval()
smi.invert(model, count=2, iterations=30, stopping=smi.Stopping(at=2, drop=0.5))
"""


def test_the_end_is_told_once_however_long_an_iteration_takes(tiny_vit, capfd, monkeypatch):
    """A report is due at the last iteration, too."""
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0.0)
    smi.invert(tiny_vit(), count=2, iterations=4)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("smi: invert 2 images: 4 iterations in ") and "loss " in line
    told = []
    smi.invert(tiny_vit(), count=2, iterations=4, progress=lambda done, total, _: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_where_nobody_watches_one_line_at_the_end_says_what_was_done(tiny_vit, capfd):
    stopping = smi.Stopping(at=2, drop=0.5)
    images = smi.invert(tiny_vit(), count=2, iterations=4, stopping=stopping)
    (line,) = capfd.readouterr().err.splitlines()
    assert (
        line.startswith("smi: invert 2 images: 4 iterations in ") and "loss " in line and "patches 8" in line
    )
    smi.transfer(tiny_vit(), tiny_vit(1), images, steps=2)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("smi: distil: 2 steps in ")
    smi.quantize(tiny_vit(), images)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("smi: quantize to W4/A8: 2 images in ")
    smi.quantize(tiny_vit(), images, progress=False)
    smi.invert(tiny_vit(), count=1, iterations=1, progress=False)
    smi.transfer(tiny_vit(), tiny_vit(1), images, steps=1, progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_bar_shows_figures_and_goes_on_from_where_a_run_was(monkeypatch, capfd):
    monkeypatch.setattr("smi.progress.is_watched", lambda: True)
    with shown(True, "invert 2 images", "iteration") as tell:
        tell(100, 400, {"loss": 2.5, "patches": 137})
        tell(400, 400, {"loss": 1.25, "patches": 46})
    bar = capfd.readouterr().err
    assert "invert 2 images" in bar and "100/400" in bar and "400/400" in bar
    assert "loss=2.5" in bar and "patches=46" in bar


@pytest.mark.parametrize("progress", ["yes", 1, [print]])
def test_what_is_no_progress_is_refused(tiny_vit, progress):
    with pytest.raises(smi.InvalidSetting, match="progress is .*; allowed: True, False, or a callable"):
        smi.invert(tiny_vit(), count=1, iterations=1, progress=progress)


@pytest.mark.slow
def test_on_a_terminal_there_is_a_bar():
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 100, 0, 0))
    with subprocess.Popen([sys.executable, "-c", RUN], stderr=slave) as process:
        os.close(slave)
        seen = b""
        while True:
            try:
                part = os.read(master, 1000)
            except OSError:
                break
            if not part:
                break
            seen += part
    os.close(master)
    assert process.returncode == 0
    assert b"30/30" in seen and b"patches=8" in seen


def interrupting(at):
    """Presses Ctrl-C when so many iterations are done."""

    def should_stop(done=[0]):  # noqa: B006 (counts)
        done[0] += 1
        if done[0] == at + 1:
            signal.raise_signal(signal.SIGINT)
        return False

    return should_stop


def test_ctrl_c_with_a_checkpoint_goes_on_to_the_same_bits(tiny_vit, tmp_path):
    settings = {"count": 3, "batch_size": 2, "iterations": 6, "stopping": smi.Stopping(at=2, drop=0.5)}
    settings |= {"progress": False}
    whole = smi.invert(tiny_vit(), **settings)
    resumable = settings | {"checkpoint": tmp_path / "run.safetensors"}
    with pytest.raises(KeyboardInterrupt, match=r"iteration \d of 6; the state is saved: call it again"):
        smi.invert(tiny_vit(), **resumable, should_stop=interrupting(3))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert smi.invert(tiny_vit(), **resumable) == whole
    student = {"steps": 4, "progress": False}
    trained = smi.transfer(tiny_vit(), tiny_vit(1), whole, **student)
    student["checkpoint"] = tmp_path / "student.safetensors"
    with pytest.raises(KeyboardInterrupt, match="the state is saved: call it again"):
        smi.transfer(tiny_vit(), tiny_vit(1), whole, **student, should_stop=interrupting(2))
    again = smi.transfer(tiny_vit(), tiny_vit(1), whole, **student)
    assert all(a.equal(b) for a, b in zip(again.parameters(), trained.parameters(), strict=True))


def test_ctrl_c_without_a_checkpoint_says_how_to_have_one(tiny_vit):
    with pytest.raises(KeyboardInterrupt, match="nothing is kept; with checkpoint='run.safetensors'"):
        smi.invert(tiny_vit(), 1, iterations=6, progress=False, should_stop=interrupting(3))


def test_a_second_ctrl_c_interrupts_at_once(tiny_vit):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        smi.invert(tiny_vit(), 1, iterations=6, progress=False, should_stop=twice)


def test_signals_of_others_and_other_threads_are_left_alone(tiny_vit):
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        smi.invert(tiny_vit(), 1, iterations=3, progress=False, should_stop=interrupting(1))
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert heard == [1]
    made = []
    run = threading.Thread(
        target=lambda: made.append(smi.invert(tiny_vit(), 1, iterations=2, progress=False))
    )
    run.start()
    run.join()
    assert len(made) == 1


def test_presets_name_how_long_an_inversion_is(tiny_vit):
    quick = smi.invert(tiny_vit(), 2, iterations="quick", progress=False)
    assert quick.made["iterations"] == 20
    short = smi.recipe("deepinversion", iterations=3)
    assert smi.invert(tiny_vit(), 2, short, iterations="paper", progress=False).made["iterations"] == 3
    with pytest.raises(
        smi.InvalidSetting, match="iterations is 'long'; allowed: a whole number >= 1, quick, paper"
    ):
        smi.invert(tiny_vit(), 2, iterations="long")


def test_more_images_change_no_full_batch(tiny_vit):
    settings = {"iterations": 2, "progress": False}
    few, many = smi.invert(tiny_vit(), 32, **settings), smi.invert(tiny_vit(), 34, **settings)
    assert many[:32] == few and many.made["batch_size"] == 32


def test_the_papers_schedule_has_a_name():
    assert smi.Stopping.paper().kept_counts(196) == (137, 95, 66, 46)
    assert smi.Stopping.paper("random").score == "random"


def test_a_score_may_call_the_model_and_ask_for_gradients(tiny_vit):
    """Greatest stays: here the patches that move the logits most."""
    seen = []

    def saliency(model, image, kept, generator):
        image.requires_grad_()
        logits = model(image, kept)
        (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), image)
        patches = smi.geometry.take_patches(gradient.abs(), kept, model.grid).sum(dim=2)
        seen.append(patches)
        return patches * image.mean()  # with a graph of its own

    stopping = smi.Stopping(at=(2, 4), drop=0.5, score=saliency)
    images = smi.invert(tiny_vit(), 2, iterations=6, stopping=stopping, progress=False)
    assert [list(patches.shape) for patches in seen] == [[2, 16], [2, 8]]
    assert images.kept.shape == (2, 4) and all(patches.gt(0).all() for patches in seen)
    assert not images.traces["importance"].requires_grad


def test_quantize_counts_the_images_it_has_seen(tiny_vit):
    seen = []
    images = smi.invert(tiny_vit(), 3, iterations=1, progress=False)
    smi.quantize(tiny_vit(), images, batch_size=2, progress=lambda *said: seen.append(said))
    assert seen == [(2, 3, {}), (3, 3, {})]

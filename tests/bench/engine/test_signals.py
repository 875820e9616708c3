"""Being told to stop: what is said, and that a second Ctrl-C ends at once."""

from __future__ import annotations

import os
import signal

import pytest

from bench.engine.signals import STOPPED, Stopper


def test_the_first_signal_stops_in_order_and_says_so(capfd):
    asked = []
    with Stopper(lambda: asked.append("stop") or "") as stopper:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopper.caught == signal.SIGTERM and stopper.message == STOPPED
        os.kill(os.getpid(), signal.SIGTERM)  # told again, it is still stopping
    assert asked == ["stop"]
    said = capfd.readouterr().err.strip()
    assert said == "stopping: running tasks save their state; Ctrl-C again ends them at once"


def test_what_goes_on_elsewhere_is_said_in_its_place(capfd):
    with Stopper(lambda: "2 jobs go on in SLURM") as stopper:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopper.message == "2 jobs go on in SLURM"
    assert capfd.readouterr().err.strip() == "2 jobs go on in SLURM"


def test_a_second_ctrl_c_ends_at_once():
    with Stopper(lambda: ""):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back_and_ignored_signals_stay_ignored(monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with Stopper(lambda: "") as stopper:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stopper.caught == 0
            assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) == before[signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])

"""Ctrl-C between two iterations instead of within one, so that what is saved then can be gone on from."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from smi.errors import Interrupted


@contextmanager
def resumable(should_stop: Callable[[], bool] | None, has_checkpoint: bool) -> Iterator[Callable[[], bool]]:
    """While open: whether to stop, because `should_stop` says so or because of Ctrl-C.

    After Ctrl-C, `Interrupted` leaves as a KeyboardInterrupt that says how to go on, or how that could have been. A
    second Ctrl-C interrupts at once, as without this. Nothing is changed where signals are somebody else's: in other
    threads, and where another handler stands.
    """
    asked = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            signal.default_int_handler(number, frame)
        asked = True

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, on_signal)
    try:
        yield lambda: asked or (should_stop is not None and should_stop())
    except Interrupted as cause:
        if not asked:
            raise
        how = "call it again with the same arguments to go on from there"
        if not has_checkpoint:
            how = "nothing is kept; with checkpoint='run.safetensors' the same call would go on from there"
        raise KeyboardInterrupt(f"{cause}: {how}") from None
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

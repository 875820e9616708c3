"""Processes that measure, each forked from one that has imported everything and done nothing else.

Importing torch and timm takes seconds, a fork takes none. The process that is forked from has no threads and no CUDA
context. Stop signals do not reach it or what it forks: whoever asked for a measurement is told to stop, and ends it. It
ends by itself, and its fork with it, when whoever started it is gone.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import smi
from bench.engine import signals
from bench.errors import BenchError

POLL_SECONDS = 0.5  # between two questions whether to stop
# Not `-m`: the package imports this module itself, which runpy warns of.
SERVER = "from bench.tasks.measurement.process import serve; serve()"
_server: subprocess.Popen[str] | None = None  # of this process; started when first needed


def measured(request: Mapping[str, Any], should_stop: Callable[[], bool]) -> dict[str, Any]:
    """The figures of a request (bench.tasks.measurement.measure.Request), measured in a process of its own.

    Raises smi.Interrupted, leaving no process behind, when told to stop; BenchError, or MemoryError, with the last line
    that the process printed where it failed; what it printed from its traceback on is the cause.
    """
    with tempfile.TemporaryDirectory(prefix="measuring-") as folder:
        answer, said = Path(folder, "answer.json"), Path(folder, "said.txt")
        code = _ask({"request": dict(request), "answer": str(answer), "said": str(said)}, should_stop)
        if code == 0:
            return json.loads(answer.read_text(encoding="utf-8"))
        text = said.read_text(encoding="utf-8", errors="replace").strip() if said.exists() else ""
    last = text.rpartition("\n")[2]
    failure = MemoryError if "OutOfMemoryError" in last else BenchError
    own = text[max(0, text.find("Traceback (most recent call last)")) :]  # not the warnings before it
    what = f"the measuring process ended {signals.how_it_died(code)}: {last}"
    raise failure(what) from RuntimeError(own)


def close() -> None:
    """End the process that is forked from, and what it has forked."""
    global _server
    server, _server = _server, None
    if server is not None:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        server.stdin.close()
        server.stdout.close()


def _ask(order: Mapping[str, str], should_stop: Callable[[], bool]) -> int:
    """Have an order carried out; the exit code of the process that did, below zero the signal that ended it."""
    global _server
    if _server is None or _server.poll() is not None:
        close()
        with signals.held():  # which it inherits, and so do its forks
            _server = subprocess.Popen(
                [sys.executable, "-c", SERVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C goes to whoever asks, not here
            )
    try:
        _server.stdin.write(json.dumps(order) + "\n")
        _server.stdin.flush()
        while not select.select([_server.stdout], [], [], POLL_SECONDS)[0]:
            if should_stop():
                raise smi.Interrupted("stopped while measuring; the measurement starts anew")
        line = _server.stdout.readline()
    except BrokenPipeError:
        line = ""
    except BaseException:
        close()
        raise
    if line:
        return int(line)
    code = _server.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(_server.pid, signal.SIGKILL)  # what it has forked, if it was killed alone
    return code


atexit.register(close)


def serve() -> None:
    """Fork a process for each order that comes in, one a line, and say how it ended, until nobody can order more."""
    from bench.tasks.measurement import measure

    for line in iter(sys.stdin.readline, ""):
        ended, holds = os.pipe()  # reads as ended once the fork, which holds the other end, is gone
        fork = os.fork()
        if fork == 0:
            os.close(ended)
            os._exit(_carry_out(measure, json.loads(line)))
        os.close(holds)
        if sys.stdin.fileno() in select.select([sys.stdin.fileno(), ended], [], [])[0]:
            os.killpg(0, signal.SIGKILL)  # nothing is ordered meanwhile: whoever did is gone
        os.close(ended)
        _, status = os.waitpid(fork, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _carry_out(measure: Any, order: Mapping[str, Any]) -> int:
    with open(order["said"], "w", encoding="utf-8") as said, open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        try:
            measure.answer(order["request"], Path(order["answer"]))
            return 0
        except BaseException:
            traceback.print_exc()
            return 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

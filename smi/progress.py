"""Progress for people who wait: a bar on a terminal or in a notebook, elsewhere one line at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

from smi.errors import InvalidSetting

Progress = Callable[[int, int, Mapping[str, float]], None]  # (done, in all, figures such as the loss)


@contextmanager
def shown(progress: bool | Progress | None, what: str, unit: str) -> Iterator[Progress | None]:
    """While open, what is to be called with (done, in all, figures): the callable given, or one that shows them.

    progress: True shows a bar with the figures and the time left; False and None show nothing. what: is done, e.g.
    "invert 32 images"; unit: of what is counted. Nothing is written to a stderr that is no terminal but one line when
    all is done. Raises InvalidSetting for anything else.
    """
    if progress is None or progress is False:
        yield None
    elif callable(progress):
        yield progress
    elif progress is True:
        bar = _Bar(what, unit) if is_watched() else _Line(what, unit)
        try:
            yield bar
        finally:
            bar.close()
    else:
        raise InvalidSetting(f"progress is {progress!r}; allowed: True, False, or a callable")


def is_watched() -> bool:
    """Whether stderr is a terminal, or this is a notebook."""
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def in_notebook() -> bool:
    """Whether this is a kernel of Jupyter, known without importing it."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


class _Bar:
    def __init__(self, what: str, unit: str) -> None:
        self._settings = {"desc": what, "unit": f" {unit}", "dynamic_ncols": True}
        self._bar: Any = None

    def __call__(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        if self._bar is None:  # a run that goes on from a checkpoint did not do the rest just now
            self._bar = tqdm(total=total, initial=done, **self._settings)
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()}, refresh=False)
        self._bar.update(done - self._bar.n)
        self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _Line:
    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit, self._began = what, unit, time.monotonic()

    def __call__(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        if done == total and sys.stderr is not None:
            shown = "".join(f", {name} {value:.4g}" for name, value in figures.items())
            seconds = time.monotonic() - self._began
            print(f"smi: {self._what}: {total} {self._unit}s in {seconds:.1f} s{shown}", file=sys.stderr)

    def close(self) -> None:
        """There is nothing to take away."""

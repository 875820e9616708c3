"""How fast tasks of a kind come to an end, and what the last one of them found: for whoever watches a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bench.engine.store import Record

WINDOW = 3600.0  # seconds back that a pace is taken over
TELLING = ("top1", "validation_top1", "logit_error", "loss", "iterations_per_second", "mb", "seconds", "kept")
SHOWN = 3  # figures of one task


def pace(spans: Iterable[tuple[float, float]], now: float) -> str:
    """Tasks a minute, or an hour where they are few: "12/min", "3.5/h"; "-" where none ended within the WINDOW.

    spans: when each task began and ended, in seconds of `now`'s clock. The time from the first one's beginning to now
    counts whole, idle or not, so that several workers at once count as several.
    """
    recent = [(began, ended) for began, ended in spans if now - ended <= WINDOW]
    if not recent:
        return "-"
    gone = min(WINDOW, now - min(began for began, _ in recent))
    hourly = 3600 * len(recent) / max(gone, 1.0)
    return f"{hourly / 60:.3g}/min" if hourly >= 60 else f"{hourly:.2g}/h"


def found(record: Record | None) -> str:
    """The telling figures of a finished task in a line: `top1 67.9, seconds 8.4`; "" where there are none."""
    if record is None or record["status"] != "done":
        return ""
    metrics = record["metrics"]
    known = [name for name in TELLING if _plain(metrics.get(name))]
    names = known or [name for name, value in metrics.items() if _plain(value)]
    return ", ".join(f"{name} {metrics[name]:.4g}" for name in names[:SHOWN])


def scalars(metrics: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """Every plain number of a record's metrics, with its path: ("top1", 67.9), ("memory/gpu_mib", 812.0)."""
    for name, value in metrics.items():
        if _plain(value):
            yield f"{before}{name}", float(value)
        elif isinstance(value, Mapping):
            yield from scalars(value, f"{before}{name}/")


def _plain(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

"""Where a data set lies: the folder given with --data NAME=DIR, else the cache (SMI_DATA_CACHE, or
~/.cache/smi/datasets), else fetched through torchvision where that is allowed and possible."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from bench.engine.task import Sources
from bench.errors import MissingData

NOT_FETCHED = "not fetched"  # of a data set that could be, where fetching is not wanted
FETCH_SECONDS = 30  # without a byte, until a download is given up


def find_folder(
    name: str,
    sources: Sources,
    lies_in: Callable[[Path], Path | None],
    fetch: Callable[[Path], None] | None,
    layout: str,
) -> Path:
    """Where a data set lies: the folder given, the cache, or the cache after a download. Raises MissingData."""
    given = sources.data.get(name)
    if given is not None:
        found = lies_in(Path(given))
        if found is None:
            raise MissingData(f"data set {name}: {given} does not hold {layout}")
        return found
    cached = cache_folder() / name
    found = lies_in(cached)
    if found is None and fetch is not None and sources.download:
        failure = _download(fetch, cached)
        found = lies_in(cached)
    else:
        failure = "" if fetch is None else NOT_FETCHED
    if found is None:
        tried = f" ({failure})" if failure else ""
        raise MissingData(
            f"data set {name} is not on this machine{tried}: give --data {name}=DIR, or put it into {cached}; "
            f"it must hold {layout}"
        )
    return found


def cache_folder() -> Path:
    """Where fetched data sets are kept."""
    given = os.environ.get("SMI_DATA_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "smi" / "datasets"


def _download(fetch: Callable[[Path], None], folder: Path) -> str:
    """Fetch into the folder; why that failed, or ""."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(FETCH_SECONDS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fetch(folder)
    except Exception as error:  # offline, refused, full disk: all the same to who asked
        return f"fetching it failed: {' '.join(str(error).split())[:120] or type(error).__name__}"
    finally:
        socket.setdefaulttimeout(before)
    return ""

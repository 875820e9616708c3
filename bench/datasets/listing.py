"""Class folders, and the pictures in them: what lies beside pictures is neither a class nor a picture."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bench.errors import BenchError

PICTURE_SUFFIXES = {".jpeg", ".jpg", ".png", ".webp", ".bmp"}
# What file managers and servers leave behind; names with a leading dot (.DS_Store, ._0.jpg, .git) are passed over too.
CLUTTER = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "lost+found", "$recycle.bin"}


def class_folders(folder: Path) -> list[str]:
    """Names of the sub-folders, sorted. BenchError for a link to nothing: a class that is not there shifts labels."""
    names = []
    for entry in _visible(folder):
        if _is(entry.is_dir):
            names.append(entry.name)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            raise BenchError(f"{entry.path} is a link to what is not there: restore its target, or remove it")
    return sorted(names)


def pictures_in(folder: Path) -> Iterator[Path]:
    """The picture files below a folder, in no order; links are followed, though never back into a folder above.

    BenchError names a picture that is no file (a link to nothing, a pipe), and a folder that cannot be read."""
    yield from _pictures_below(folder, frozenset())


def pictures_of_class(folder: Path) -> tuple[Path, ...]:
    """`pictures_in` a class folder, sorted; listed once a process unless the folder's own entries change."""
    try:
        changed = folder.stat().st_mtime_ns
    except OSError as error:
        raise BenchError(f"the folder {folder} cannot be read: {error.strerror}") from None
    return _sorted_pictures(folder, changed)


@cache
def _sorted_pictures(folder: Path, changed: int) -> tuple[Path, ...]:
    return tuple(sorted(pictures_in(folder)))


def holds_files(folder: Path) -> bool:
    """Whether any file but clutter lies below the folder: if none does, it is empty, and no class."""
    return any(
        holds_files(Path(entry.path)) if entry.is_dir(follow_symlinks=False) else True
        for entry in _visible(folder)
    )


def size_of(path: Path) -> int:
    """Bytes of a picture file. BenchError if it is not there (any more)."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise BenchError(f"the picture {path} cannot be read: {error.strerror}") from None


def _pictures_below(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    above |= {os.path.realpath(folder)}
    for entry in _visible(folder):
        if _is(entry.is_dir):
            if not entry.is_symlink() or os.path.realpath(entry.path) not in above:
                yield from _pictures_below(Path(entry.path), above)
        elif os.path.splitext(entry.name)[1].lower() in PICTURE_SUFFIXES:
            if not _is(entry.is_file):
                what = "a link to what is not there" if entry.is_symlink() else "no regular file"
                raise BenchError(f"the picture {entry.path} is {what}: restore it, or remove it")
            yield Path(entry.path)


def _is(question) -> bool:
    try:
        return question()
    except OSError:  # a link to itself
        return False


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [
                entry
                for entry in entries
                if not entry.name.startswith(".") and entry.name.lower() not in CLUTTER
            ]
    except OSError as error:
        raise BenchError(f"the folder {folder} cannot be read: {error.strerror}") from None

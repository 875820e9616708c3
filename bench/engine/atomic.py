"""Files that appear whole or not at all: written aside, flushed to disk, then moved into place.

Records, claims and results go through this file, so what a full disk or a kill can leave of them is decided here.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any

BLOCK = 1 << 20  # bytes read at a time when hashing
SPARE = 1 << 26  # bytes that whoever writes much leaves free on a disk
_ENCODER = json.JSONEncoder(allow_nan=False)
NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


def write_bytes(path: Path, data: bytes, aside: Path | None = None, lasting: bool = True) -> None:
    """Put `data` at `path`, replacing what is there.

    aside: folder on the same file system for the half-written file; by default the folder of `path`.
    lasting: survive a power cut too, at the price of waiting for the disk.
    Raises OSError (disk full, read-only, ...) with `path` as it was.
    """
    temporary = _write_aside(path, data, aside, lasting)
    try:
        os.replace(temporary, path)
    except BaseException:
        _unlink_quietly(temporary)
        raise
    if lasting:
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text, line ends as given."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, aside: Path | None = None) -> None:
    """`write_bytes` of `json_bytes`."""
    write_bytes(path, json_bytes(value), aside)


def json_bytes(value: Any) -> bytes:
    """Readable JSON, always the same bytes for the same value. NaN and infinities are refused (ValueError)."""
    return (_indented(value, "\n") + "\n").encode()


def _indented(value: Any, margin: str) -> str:
    """`json.dumps(value, indent=1, sort_keys=True, allow_nan=False)` in a fraction of its time: with an indent Python's
    own encoder is used, without one the compiled encoder, which here writes every container of plain values."""
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if not isinstance(value, (dict, list, tuple)) or not value:
        return _ENCODER.encode(value)
    inner = margin + " "
    parts = value.values() if isinstance(value, dict) else value
    if not any(isinstance(part, (dict, list, tuple)) for part in parts):
        text = json.dumps(value, sort_keys=True, allow_nan=False, separators=("," + inner, ": "))
        return text[0] + inner + text[1:-1] + margin + text[-1]
    if isinstance(value, dict):
        lines = [f"{_key(name)}: {_indented(part, inner)}" for name, part in sorted(value.items())]
        return "{" + inner + ("," + inner).join(lines) + margin + "}"
    return "[" + inner + ("," + inner).join(_indented(part, inner) for part in value) + margin + "]"


def _key(name: Any) -> str:
    return encode_basestring_ascii(name) if isinstance(name, str) else f'"{_ENCODER.encode(name)}"'


def create(path: Path, data: bytes, aside: Path | None = None) -> bool:
    """Put `data` at `path` only if nothing is there; true for exactly one of any number of callers.

    A hard link is atomic on every shared file system, NFS included, and the file is whole when it appears.
    Where hard links do not exist the file is opened exclusively instead. It need not survive a power cut.
    """
    temporary = _write_aside(path, data, aside, lasting=False)
    try:
        os.link(temporary, path)
        return True
    except FileExistsError:
        # NFS may carry a link out, lose the answer and ask again: then it is there, and it is ours.
        return os.stat(temporary).st_nlink > 1
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        return _create_exclusively(path, data)
    finally:
        _unlink_quietly(temporary)


def overwrite(path: Path, data: bytes) -> None:
    """Write over a file in place: for what is written often and may be read half-written, as a heartbeat may."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, data)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)


def free(folder: Path) -> int:
    """Bytes that may still be written where a folder is, or will be. Raises OSError."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk; file systems that cannot do that to a folder are left alone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Flush the contents of a file that something else has written."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's contents."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _write_aside(path: Path, data: bytes, aside: Path | None, lasting: bool) -> Path:
    temporary = (aside or path.parent) / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        _write_new(temporary, data, lasting)
    except BaseException:
        _unlink_quietly(temporary)
        raise
    return temporary


def _write_new(path: Path, data: bytes, lasting: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if lasting:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create_exclusively(path: Path, data: bytes) -> bool:
    try:
        _write_new(path, data, lasting=False)
    except FileExistsError:
        return False
    except BaseException:
        _unlink_quietly(path)
        raise
    return True


def _unlink_quietly(path: Path) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass

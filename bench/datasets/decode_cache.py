"""The folder of --decode-cache: splits decoded once, for all tasks, processes and machines that share it.

    decode_cache.json   which version of this form the folder has
    <key>/              one split, sized for one kind of model (bench/datasets/decoded.py)
    claims/             who is decoding what (bench/engine/store/claims.py)
    tmp/                work in progress; nothing in it counts

A split appears whole or not at all, by one rename. Of all processes that want it one decodes, the others wait.
It is named by everything that decides its pixels: the split's fingerprint, how pictures are sized and turned, the
decoding code, and the versions of the libraries that decode and resize. Nothing in it is part of a task's key.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy

from bench.datasets import decoded, decoding, fitting
from bench.datasets.decoded import Decoded
from bench.datasets.listing import CLUTTER
from bench.datasets.loading import raw_batches
from bench.datasets.pictures import Pictures
from bench.engine import atomic
from bench.engine.store import probe_writable
from bench.engine.store.claims import Claim, Claims
from bench.engine.task import KEY_LENGTH
from bench.errors import StoreError
from bench.text import bytes_text, one_line
from smi.errors import Interrupted

MARK = "decode_cache.json"
OPTION = "--decode-cache"
NAME = re.compile(f"[0-9a-f]{{{KEY_LENGTH}}}")  # of a split's folder
BATCH = 128  # pictures decoded between two looks at whether to stop
WAIT = 0.5  # seconds between two looks at whether another process has decoded a split
Progress = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Entry:
    """A split's place in a cache."""

    split: Pictures
    made_of: Mapping[str, Any]
    root: Path

    @cached_property
    def key(self) -> str:
        return decoded.key_of(self.made_of)

    @property
    def folder(self) -> Path:
        return self.root / self.key

    @property
    def bytes(self) -> int:
        """Room that it takes."""
        return len(self.split) * math.prod(self.split.fit.size)

    @property
    def is_there(self) -> bool:
        """Whether something vouches for it; not that every byte is right."""
        said = decoded.about(self.folder)
        return said is not None and said["bytes"] == self.bytes


class DecodeCache:
    """The folder; StoreError, one line, wherever it cannot be used."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.claims = Claims(root / "claims", root / "tmp")

    def entry(self, split: Pictures, named: Mapping[str, Any]) -> Entry:
        """Where a split belongs that `bench.datasets.fingerprint` named; all its classes, whichever are asked for."""
        labels = numpy.asarray(split.labels, dtype=numpy.int64)
        made_of = {
            "split": {key: value for key, value in named.items() if key != "classes"},
            "labels": hashlib.sha256(labels.tobytes()).hexdigest(),
            **split.made_by(),
            "decoders": decoders(),
        }
        return Entry(split, made_of, self.root)

    def check(self) -> None:
        """Refuse a folder of another version, or that holds something else. Writes nothing; an absent one is fine."""
        with self._errors("read"):
            if not self.root.exists():
                return
            if not self.root.is_dir():
                raise StoreError(f"{OPTION}: {self.root} is no folder")
            others = sorted(n for n in os.listdir(self.root) if n[0] != "." and n.lower() not in CLUTTER)
            try:
                version = json.loads((self.root / MARK).read_bytes())["version"]
            except FileNotFoundError:
                if others:
                    raise StoreError(
                        f"{OPTION}: {self.root} holds other things ({others[0]}) and is no decode cache: give a new "
                        f"or empty folder"
                    ) from None
                return
            except (ValueError, TypeError, KeyError):
                version = None
        if version != decoded.VERSION:
            raise StoreError(
                f"{OPTION}: {self.root / MARK} says version {version}, this version of bench knows "
                f"{decoded.VERSION}: give another folder"
            )

    def prepare(self) -> None:
        """Make the folders, prove that they can be written, and remove what killed processes left."""
        self.check()
        with self._errors("written"):
            self.root.mkdir(parents=True, exist_ok=True)
            atomic.create(self.root / MARK, atomic.json_bytes({"version": decoded.VERSION}))
            for folder in (self.claims.folder, self.claims.aside):
                folder.mkdir(exist_ok=True)
            probe_writable(self.claims.aside)
            left = [name for name in os.listdir(self.claims.aside) if name[0] != "."]
            held = self.claims.held() if left else {}
            for name in left:
                if name.partition(".")[0] not in held:
                    shutil.rmtree(self.claims.aside / name, ignore_errors=True)

    def folders(self) -> list[Path]:
        """Those of the splits that are there, damaged ones too. Refuses what is no decode cache."""
        self.check()
        with self._errors("read"):
            if not (self.root / MARK).exists():
                raise StoreError(f"{self.root} is no decode cache: it has no {MARK}")
            return sorted(path for path in self.root.iterdir() if NAME.fullmatch(path.name))

    def free(self) -> int:
        """Bytes that may still be written where the folder is, or will be."""
        with self._errors("read"):
            return atomic.free(self.root)

    def require_room(self, needed: int) -> None:
        """Refuse to write `needed` bytes where they do not fit."""
        whole = needed + atomic.SPARE
        if needed and whole > (free := self.free()):
            raise StoreError(
                f"{OPTION}: {self.root} has {bytes_text(free)} free, {bytes_text(whole)} are needed: free some, give "
                f"another folder, or do without the option"
            )

    def look(self, entry: Entry) -> Decoded | None:
        """A split that is there, with the size and time of change that it was sealed with; None if it is not."""
        if entry.is_there and decoded.is_unchanged(entry.folder):
            return Decoded(entry.folder / decoded.PIXELS, entry.split)
        return None

    def obtain(self, entry: Entry, progress: Progress, should_stop: Callable[[], bool]) -> Decoded:
        """The split, decoded here unless it is there, and intact, or another process decodes it.

        What is there is trusted if `look` finds it unchanged; otherwise its checksum decides (a copied folder has other
        times), and what is damaged is decoded again. Raises smi.Interrupted when told to stop."""
        if (found := self.look(entry)) is not None:
            return found
        if not os.access(self.root, os.W_OK) and entry.is_there and decoded.is_intact(entry.folder):
            return Decoded(entry.folder / decoded.PIXELS, entry.split)
        self.prepare()
        while (found := self.look(entry)) is None:
            with self._errors("written"):
                claim = self.claims.take(entry.key)
                if claim is None:
                    time.sleep(WAIT)
                else:
                    self._decode_claimed(entry, claim, progress, should_stop)
            if should_stop():
                raise Interrupted("stopped while pictures were being decoded")
        return found

    def _decode_claimed(
        self, entry: Entry, claim: Claim, progress: Progress, should_stop: Callable[[], bool]
    ) -> None:
        try:
            # Another process may have decoded it, and given up its claim, between the look and the claim.
            if self.look(entry) is None and not self._sealed_again(entry):
                self._make(entry, progress, should_stop)
        finally:
            claim.release()

    def _sealed_again(self, entry: Entry) -> bool:
        """Whether it is there and intact but for its time of change, which is noted."""
        if not entry.is_there or not decoded.is_intact(entry.folder):
            return False
        decoded.seal(entry.folder, entry.made_of, decoded.about(entry.folder)["sha256"])
        return True

    def _make(self, entry: Entry, progress: Progress, should_stop: Callable[[], bool]) -> None:
        self.require_room(entry.bytes)
        work = self.claims.aside / f"{entry.key}.{uuid.uuid4().hex}"
        # Named as it will be: the seal is held to the folder's name.
        folder = work / entry.key
        folder.mkdir(parents=True)
        try:
            decoded.seal(folder, entry.made_of, _decode(entry.split, folder, progress, should_stop))
            with suppress(FileNotFoundError):
                os.rename(entry.folder, work / "damaged")
            with suppress(OSError) if self.look(entry) else nullcontext():
                os.rename(folder, entry.folder)
            atomic.sync_folder(self.root)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{OPTION}: {self.root} cannot be {what}: {one_line(error.strerror or str(error))}; mend that, give "
                f"another folder, or do without the option"
            ) from error


def _decode(split: Pictures, folder: Path, progress: Progress, should_stop: Callable[[], bool]) -> str:
    """Write a split's pixels, on disk when this returns; their sha256."""
    digest, done = hashlib.sha256(), 0
    with open(folder / decoded.PIXELS, "xb") as file:
        for pixels, _ in raw_batches(split, BATCH):
            if should_stop():
                raise Interrupted("stopped while decoding pictures; decoding starts anew")
            data = pixels.numpy()
            digest.update(data)
            file.write(data)
            done += len(data)
            progress(done, len(split), {})
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


@cache
def decoders() -> dict[str, str]:
    """Versions of all that turns a file into pixels: libraries, those that Pillow was built with, our own code."""
    from PIL import features

    found = {name: metadata.version(name) for name in ("pillow", "torchvision", "timm")}
    for part in ("libjpeg_turbo", "jpg", "zlib", "webp"):
        found[part] = str(features.version(part))
    for module in (decoding, fitting):
        found[module.__name__] = atomic.sha256_of(Path(module.__file__))
    return found

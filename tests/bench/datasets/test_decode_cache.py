"""Pictures decoded once are those that are decoded each time; what is damaged, foreign or unfinished never counts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from vision_data import cifar, folders

import bench.datasets as data
from bench.datasets import decode_cache, decoded, fingerprint, loading, open_split
from bench.datasets.decode_cache import DecodeCache
from bench.datasets.decoded import ABOUT, PIXELS, Decoded
from bench.engine import atomic
from bench.engine.task import Sources
from bench.errors import BenchError, StoreError
from smi.errors import Interrupted

ROOT = Path(__file__).parents[3]
CONFIG = {"input_size": (3, 32, 32), "interpolation": "bicubic"}
OPEN = """
import sys, time
from pathlib import Path
from bench.datasets import decode_cache, fingerprint, open_split
from bench.engine.task import Sources
def decoding(done, total, figures):
    print(done, flush=True)
    while not Path(sys.argv[3]).exists():
        time.sleep(0.05)
def waiting():
    print("waits", flush=True)
decode_cache.BATCH = 4
sources = Sources(data={"mine": Path(sys.argv[1])}, decode_cache=Path(sys.argv[2]))
config = {"input_size": (3, 32, 32), "interpolation": "bicubic"}
named = fingerprint("mine", {}, "test", sources)
split = open_split(named, config, sources, progress=decoding, should_stop=waiting)
print("read", int(sum(split.pixels(index).long().sum() for index in range(len(split)))))
"""


@pytest.fixture(autouse=True)
def nothing_held(monkeypatch):
    monkeypatch.setattr(data, "_held", {})


@pytest.fixture
def mine(tmp_path):
    """Sources of 3 classes of 4 pictures with a decode cache that is not there yet."""
    return Sources(data={"mine": folders(tmp_path / "mine")}, decode_cache=tmp_path / "cache")


def opened(sources: Sources, config=CONFIG, name: str = "mine", split: str = "test", **options):
    return open_split(
        fingerprint(name, options.pop("settings", {}), split, sources), config, sources, **options
    )


def made(sources: Sources) -> list[Path]:
    return DecodeCache(sources.decode_cache).folders()


def tensors(split) -> tuple[torch.Tensor, torch.Tensor]:
    return data.in_memory(split).tensors


def same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def in_another_process(sources: Sources, go_on: Path) -> subprocess.Popen:
    """Opens the test split, decoding 4 pictures at a time and no more than these before the file `go_on` is there."""
    command = [sys.executable, "-c", OPEN, sources.data["mine"], sources.decode_cache, go_on]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([1, 3]),
    st.integers(4, 40),
    st.integers(4, 40),
    st.sampled_from(["bicubic", "bilinear"]),
    st.integers(1, 13),
    st.integers(0, 2**32),
)
def test_read_in_any_size_and_order_they_are_the_pictures_bit_for_bit(
    channels, height, width, interpolation, size, seed
):
    random = Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for kind in "ab":
            for split in ("train", "test"):
                (root / "data" / split / kind).mkdir(parents=True)
                for number in range(4):
                    shape = (random.randint(1, 60), random.randint(1, 60))
                    noise = Image.frombytes("RGB", shape, random.randbytes(3 * shape[0] * shape[1]))
                    noise.save(root / "data" / split / kind / f"{number}.jpg")
        config = {"input_size": (channels, height, width), "interpolation": interpolation}
        sources = Sources(data={"mine": root / "data"})
        plain = data.open_dataset("mine", {}, sources).split("test", config)
        found = opened(Sources(data=sources.data, decode_cache=root / "cache"), config)
        assert isinstance(found, Decoded) and same(found, plain)
        order = [random.choices(range(8), k=random.randint(1, 5)) for _ in range(3)]
        for (ours, of_ours), (pictures, labels) in zip(
            loading.load(found, size, order=order), loading.load(plain, size, order=order), strict=True
        ):
            assert torch.equal(ours, pictures) and torch.equal(of_ours, labels)
        assert [len(part) for part, _ in data.batches(found, size)] == [
            len(part) for part, _ in data.batches(plain, size)
        ]
        assert all(torch.equal(found[index][0], plain[index][0]) for index in range(8))
        with pytest.raises(IndexError):
            found[8]


def test_once_decoded_no_picture_is_decoded_again(mine, monkeypatch):
    first = opened(mine)
    monkeypatch.setattr("bench.datasets.pictures.read_picture", lambda *_: pytest.fail("decoded again"))
    assert same(opened(mine), first) and len(made(mine)) == 1
    assert not any((mine.decode_cache / "tmp").iterdir())


def test_everything_that_decides_the_pixels_is_in_the_name(mine, monkeypatch, tmp_path):
    opened(mine)
    for number, change in enumerate(
        [
            {"config": {**CONFIG, "input_size": (3, 32, 40)}},
            {"config": {**CONFIG, "interpolation": "bilinear"}},
            {"config": {**CONFIG, "input_size": (1, 32, 32)}},
            {"split": "validation"},
        ]
    ):
        opened(mine, **change)
        assert len(made(mine)) == number + 2
    opened(mine, {"input_size": [3, 32, 32]})
    assert len(made(mine)) == 5, "bicubic is what no interpolation means"
    Image.new("RGB", (30, 30)).save(mine.data["mine"] / "test" / "bee" / "more.jpg")
    assert len(opened(mine)) == 13 and len(made(mine)) == 6
    versions = {**decode_cache.decoders(), "libjpeg_turbo": "0.0"}
    monkeypatch.setattr(decode_cache, "decoders", lambda: versions)
    opened(mine)
    assert len(made(mine)) == 7
    val = tmp_path / "val" / "n01440764"
    val.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (50, 40), (9, 9, 50 * number)).save(val / f"{number}.JPEG")
    imagenet = Sources(data={"imagenet": tmp_path / "val"}, decode_cache=mine.decode_cache)
    counts = [
        len(opened(imagenet, name="imagenet", settings=some)) for some in ({}, {"subset": 2}, {"crop_pct": 1})
    ]
    assert counts == [3, 2, 3] and len(made(mine)) == 10


def test_arrays_classes_and_the_few_that_calibrate_read_from_it_too(tmp_path):
    sources = Sources(data={"cifar10": cifar(tmp_path, 10)}, decode_cache=tmp_path / "cache")
    assert (
        not isinstance(opened(sources, name="cifar10", few=True), Decoded)
        and not sources.decode_cache.exists()
    )
    data._held.clear()
    whole = opened(sources, name="cifar10")
    assert isinstance(whole, Decoded) and isinstance(opened(sources, name="cifar10", few=True), Decoded)
    named = fingerprint("cifar10", {}, "test", sources) | {"classes": [2, 7]}
    pictures, labels = open_split(named, CONFIG, sources).tensors
    chosen = torch.isin(torch.tensor(whole.labels), torch.tensor([2, 7]))
    assert torch.equal(pictures, tensors(whole)[0][chosen]) and set(labels.tolist()) == {2, 7}
    assert len(made(sources)) == 1


@pytest.mark.parametrize("damage", ["cut", "bits", "seal", "no seal", "no pixels"])
def test_what_is_damaged_is_decoded_again(mine, damage):
    expected = tensors(opened(mine))
    (folder,) = made(mine)
    pixels, about = folder / PIXELS, folder / ABOUT
    before = pixels.read_bytes()
    if damage == "cut":
        pixels.write_bytes(before[:-1])
    elif damage == "bits":
        pixels.write_bytes(b"\1" + before[1:])
        os.utime(pixels, ns=(0, 0))
    elif damage == "seal":
        about.write_text(about.read_text().replace('"sha256"', '"sha"'))
        os.utime(pixels, ns=(0, 0))
    else:
        (about if damage == "no seal" else pixels).unlink()
    assert all(torch.equal(a, b) for a, b in zip(tensors(opened(mine)), expected, strict=True))
    assert made(mine) == [folder] and pixels.read_bytes() == before and decoded.is_intact(folder)


def test_a_copied_cache_is_read_through_once_and_used(mine, tmp_path, monkeypatch):
    expected = tensors(opened(mine))
    copy = Sources(data=mine.data, decode_cache=tmp_path / "copy")
    shutil.copytree(mine.decode_cache, copy.decode_cache, copy_function=shutil.copyfile)
    (folder,) = made(copy)
    os.utime(folder / PIXELS, ns=(5, 5))
    monkeypatch.setattr("bench.datasets.pictures.read_picture", lambda *_: pytest.fail("decoded again"))
    assert all(torch.equal(a, b) for a, b in zip(tensors(opened(copy)), expected, strict=True))
    assert decoded.is_unchanged(folder)
    monkeypatch.setattr(decoded, "is_intact", lambda _: pytest.fail("read through again"))
    opened(copy)


def test_a_file_that_changes_under_a_reader_is_one_line(mine):
    split = opened(mine)
    os.truncate(split.path, 100)
    for read in (lambda: split[11], lambda: list(data.batches(split, 5))):
        with pytest.raises(BenchError, match="ends too early") as refusal:
            read()
        assert "\n" not in str(refusal.value)


def test_a_killed_process_leaves_nothing_that_counts_and_nothing_for_long(mine):
    killed = in_another_process(mine, Path("nowhere"))
    assert [killed.stdout.readline() for _ in range(2)] == ["waits\n", "4\n"]
    assert len(list((mine.decode_cache / "tmp").glob("*.*/*/pixels.u8"))) == 1
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert made(mine) == []
    plain = data.open_dataset("mine", {}, mine).split("test", CONFIG)
    assert same(opened(mine), plain) and len(made(mine)) == 1
    assert not any((mine.decode_cache / "tmp").iterdir())


def test_of_two_processes_one_decodes_and_the_other_waits(mine, tmp_path):
    first = in_another_process(mine, tmp_path / "go")
    assert [first.stdout.readline() for _ in range(2)] == ["waits\n", "4\n"]
    second = in_another_process(mine, tmp_path / "go")
    assert second.stdout.readline() == "waits\n"
    (tmp_path / "go").touch()
    decoded, read = (process.communicate()[0].splitlines() for process in (first, second))
    assert {"8", "12"} < set(decoded) and set(read) - {"waits"} == {decoded[-1]}, (
        "the second has decoded nothing"
    )
    assert decoded[-1].startswith("read ") and len(made(mine)) == 1


def test_told_to_stop_it_stops_and_leaves_nothing(mine, monkeypatch):
    monkeypatch.setattr(decode_cache, "BATCH", 4)
    told = []
    with pytest.raises(Interrupted, match="decoding"):
        opened(mine, progress=lambda done, *_: told.append(done), should_stop=lambda: bool(told))
    assert told == [4] and made(mine) == [] and not any((mine.decode_cache / "tmp").iterdir())
    maker = in_another_process(mine, Path("nowhere"))
    try:
        assert [maker.stdout.readline() for _ in range(2)] == ["waits\n", "4\n"]
        with pytest.raises(Interrupted, match="pictures were being decoded"):
            opened(mine, should_stop=lambda: True)
    finally:
        maker.kill()
        maker.wait()


def test_a_damaged_picture_is_one_line_and_nothing_is_kept(mine):
    (mine.data["mine"] / "test" / "cat" / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(BenchError, match=r"cat/1\.jpg cannot be read as a picture"):
        opened(mine)
    assert made(mine) == [] and not any((mine.decode_cache / "tmp").iterdir())


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: root.write_text(""), "is no folder"),
        (lambda root: (root / "photos").mkdir(parents=True), r"holds other things \(photos\)"),
        (
            lambda root: (root.mkdir(), (root / "decode_cache.json").write_text('{"version": 2}')),
            "says version 2",
        ),
        (lambda root: (root.mkdir(), (root / "decode_cache.json").write_text("{")), "says version None"),
        (lambda root: (root.mkdir(), (root / "decode_cache.json").mkdir()), "cannot be read"),
    ],
)
def test_folders_that_are_none_of_ours_are_refused_in_one_line_and_left_alone(mine, prepare, message):
    prepare(mine.decode_cache)
    before = sorted(mine.decode_cache.rglob("*"))
    with pytest.raises(StoreError, match=message) as refusal:
        opened(mine)
    assert "\n" not in str(refusal.value) and str(mine.decode_cache) in str(refusal.value)
    assert sorted(mine.decode_cache.rglob("*")) == before


def test_a_folder_that_cannot_be_written_serves_what_it_has(mine, monkeypatch):
    expected = tensors(opened(mine))
    (folder,) = made(mine)
    os.utime(folder / PIXELS, ns=(5, 5))

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(decode_cache, "probe_writable", refuse)
    assert all(torch.equal(a, b) for a, b in zip(tensors(opened(mine)), expected, strict=True))
    with pytest.raises(StoreError, match="cannot be written: Permission denied") as refusal:
        opened(mine, split="validation")
    assert "\n" not in str(refusal.value)


def test_where_there_is_no_room_nothing_is_begun(mine, monkeypatch):
    monkeypatch.setattr(DecodeCache, "free", lambda self: atomic.SPARE + 12 * 3 * 32 * 32 - 1)
    with pytest.raises(StoreError, match=r"has 67\.1 MB free, 67\.1 MB are needed"):
        opened(mine)
    assert made(mine) == [] and not any((mine.decode_cache / "tmp").iterdir())
    monkeypatch.setattr(DecodeCache, "free", lambda self: atomic.SPARE + 12 * 3 * 32 * 32)
    assert len(opened(mine)) == 12


def test_the_seal_says_what_the_pixels_were_made_of(mine):
    opened(mine)
    (folder,) = made(mine)
    said = json.loads((folder / ABOUT).read_bytes())
    assert said["made_of"]["split"] == fingerprint("mine", {}, "test", mine)
    assert said["made_of"]["fit"] == {"crop_pct": 0.875, "interpolation": "bicubic", "size": [3, 32, 32]}
    assert said["made_of"]["upright"] is True and "libjpeg_turbo" in said["made_of"]["decoders"]
    assert str(mine.data["mine"]) not in (folder / ABOUT).read_text()


@pytest.mark.gpu
def test_on_a_gpu_the_bits_are_those_of_the_cpu_decoded_before_or_not(mine):
    plain = data.open_dataset("mine", {}, mine).split("test", CONFIG)
    pictures, labels = tensors(plain)
    for split in (plain, opened(mine)):
        found = [torch.cat(parts) for parts in zip(*data.batches(split, 5, "cuda"), strict=True)]
        assert all(part.is_cuda for part in found)
        assert torch.equal(found[0].cpu(), pictures) and torch.equal(found[1].cpu(), labels)

"""What lies beside pictures changes nothing; what should be a picture and is none is named."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from vision_data import flowers, folders

from bench.datasets import fingerprint, open_dataset
from bench.engine.task import Sources
from bench.errors import BenchError

CONFIG = {"input_size": (3, 32, 32), "interpolation": "bicubic"}
WORDNET = ("n01440764", "n01443537", "n02110185")


def layout(name, root):
    """A data set of that name, in pictures by class."""
    return folders(root, ("train", "val"), classes=WORDNET if name == "imagenet" else ("ant", "bee", "cat"))


def seen(name, root):
    sources = Sources(data={name: root})
    dataset = open_dataset(name, {}, sources)
    found = {split: [label for _, label in dataset.split(split, CONFIG)] for split in dataset.splits}
    return found, [fingerprint(name, {}, split, sources) for split in dataset.splits]


def litter(root):
    """What macOS, Windows, notebooks, a NAS and version control leave."""
    for split in ("train", "val"):
        for place in (root / split, *sorted((root / split).iterdir())):
            if place.is_dir():
                (place / ".DS_Store").write_bytes(b"\0")
                (place / "Thumbs.db").write_bytes(b"\0")
                (place / "._0.jpg").write_bytes(b"\0\5\26\7")
                (place / "notes.txt").write_text("text")
                (place / ".gone").symlink_to("/nonexistent")
        for name in (".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir", "lost+found"):
            (root / split / name).mkdir()
            Image.new("RGB", (8, 8)).save(root / split / name / "0.jpg")
        (root / split / "aaa_empty").mkdir()
        (root / split / "aaa_empty" / ".DS_Store").write_bytes(b"\0")


@pytest.mark.parametrize("name", ["mine", "cub200", "imagenet"])
def test_litter_is_neither_class_nor_picture(tmp_path, name):
    root = layout(name, tmp_path / "clean")
    shutil.copytree(root, tmp_path / "littered")
    litter(tmp_path / "littered")
    assert seen(name, tmp_path / "littered") == seen(name, root)


@pytest.mark.parametrize("name", ["mine", "imagenet"])
def test_a_picture_that_is_no_file_is_named(tmp_path, name):
    root = layout(name, tmp_path)
    victim = sorted((root / "val").iterdir())[1] / "9.png"
    for make, what in (
        (lambda: victim.symlink_to("/nonexistent/9.png"), "a link to what is not there"),
        (lambda: victim.symlink_to(victim), "a link to what is not there"),
        (lambda: os.mkfifo(victim), "no regular file"),
    ):
        make()
        with pytest.raises(BenchError, match=rf"{victim} is {what}"):
            seen(name, root)
        victim.unlink()
    assert seen(name, root)


@pytest.mark.parametrize("name", ["mine", "imagenet"])
def test_a_class_that_is_a_link_to_nothing_is_named(tmp_path, name):
    root = layout(name, tmp_path)
    (root / "val" / "aa").symlink_to("/nonexistent/aa")
    with pytest.raises(BenchError, match=r"val/aa is a link to what is not there"):
        seen(name, root)


@pytest.mark.parametrize("name", ["mine", "imagenet"])
def test_links_to_folders_are_followed_but_not_in_circles(tmp_path, name):
    root = layout(name, tmp_path / "data")
    first = sorted((root / "val").iterdir())[0]
    before, _ = seen(name, root)
    shutil.move(first, tmp_path / "elsewhere")
    first.symlink_to(tmp_path / "elsewhere")
    assert seen(name, root)[0] == before
    (first / "again").symlink_to(first)
    assert seen(name, root)[0] == before


def test_a_class_of_pictures_in_no_known_format_is_not_passed_over(tmp_path):
    root = layout("mine", tmp_path)
    for path in (root / "train" / "bee").iterdir():
        path.rename(path.with_suffix(".xyz"))
    with pytest.raises(BenchError, match=r"train/bee holds files, but no pictures \(\.bmp, "):
        seen("mine", root)


def test_a_flower_that_is_missing_is_named(tmp_path):
    sources = Sources(data={"flowers102": flowers(tmp_path)})
    (tmp_path / "flowers-102" / "jpg" / "image_00003.jpg").unlink()
    with pytest.raises(BenchError, match=r"the picture .*image_00003\.jpg cannot be read: No such file"):
        fingerprint("flowers102", {}, "train", sources)


def test_a_class_is_listed_once_a_process_unless_it_changes(tmp_path, monkeypatch):
    root = folders(tmp_path)
    dataset = open_dataset("mine", {}, Sources(data={"mine": root}))
    first = dataset.fingerprint("test")
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: (listed.append(Path(folder)), scandir(folder))[1])
    assert dataset.fingerprint("test") == first and dataset.count("test") == 12
    assert root / "test" in listed and root / "test" / "bee" not in listed
    Image.new("RGB", (8, 8)).save(root / "test" / "bee" / "more.jpg")
    os.utime(root / "test" / "bee", ns=(1, 1))  # another time than before, however coarse the clock
    assert dataset.fingerprint("test") != first and dataset.count("test") == 13
    assert listed.count(root / "test" / "bee") == 1 and root / "test" / "ant" not in listed

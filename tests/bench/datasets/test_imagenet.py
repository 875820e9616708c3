"""Labels of ImageNet's class folders: by WordNet id, or by number; anything else is refused."""

import hashlib
import random
from pathlib import Path

import pytest
from PIL import Image
from timm.data import ImageNetInfo
from vision_data import folders

from bench.datasets import fingerprint, open_dataset
from bench.datasets.imagenet import imagenet_labels
from bench.engine.task import Sources
from bench.errors import BenchError

WORDNET = ImageNetInfo("imagenet-1k").label_names()


@pytest.mark.parametrize("spelling", ["{}", "{:03}", "{:05}"])
def test_numbered_folders_are_ordered_as_numbers(spelling):
    names = [spelling.format(index) for index in range(1000)]
    assert imagenet_labels(sorted(names), Path("val")) == {name: index for index, name in enumerate(names)}


def test_wordnet_ids_have_their_own_labels_in_any_subset():
    for count in (1, 200, 1000):
        chosen = random.Random(count).sample(range(1000), count)
        names = [WORDNET[index] for index in chosen]
        assert imagenet_labels(names, Path("val")) == dict(zip(names, chosen, strict=True))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([str(index) for index in range(1, 1001)], "numbered from 1"),
        ([f"{index:04}" for index in range(1, 1001)], "numbered from 1"),
        ([f"class{index:04}" for index in range(1000)], "val/class0000 is no ImageNet class"),
        ([*WORDNET[:999], "cat"], "val/cat is no ImageNet class"),
        ([*WORDNET[:999], "7"], "val/7 is no ImageNet class"),
        ([str(index) for index in range(999)], r"val/0 is no ImageNet class \(999 class folders here\)"),
        (["1", "01", *map(str, range(2, 1000))], "is no ImageNet class"),
        ([*map(str, range(999)), "²"], "is no ImageNet class"),
        ([*map(str, range(999)), "-1"], "is no ImageNet class"),
    ],
)
def test_other_names_are_refused_and_what_is_allowed_is_said(names, message):
    with pytest.raises(BenchError, match=message) as refusal:
        imagenet_labels(names, Path("val"))
    assert "allowed: WordNet ids" in str(refusal.value) and "0 to 999" in str(refusal.value)


def test_numbered_folders_make_other_keys_than_those_sorted_as_text_did(tmp_path):
    """Results of folders that were labelled as text must not be taken for those of the right labels."""
    for index in range(1000):
        (tmp_path / str(index)).mkdir()
        (tmp_path / str(index) / "a.png").touch()
    Image.new("RGB", (8, 8)).save(tmp_path / "10" / "a.png")
    sources = Sources(data={"imagenet": tmp_path})
    dataset = open_dataset("imagenet", {}, sources)
    files = dataset.split("test", {"input_size": (3, 32, 32), "interpolation": "bicubic"}).files
    assert all(int(path.parent.name) == label for path, label in files)
    text = "".join(
        f"{path.relative_to(tmp_path).as_posix()}\t{path.stat().st_size}\n"
        for path in sorted(tmp_path.rglob("*.png"))
    )
    as_text = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert fingerprint("imagenet", {}, "test", sources)["content"] != as_text


def test_numbered_folders_of_cifar_are_ordered_as_numbers(tmp_path):
    sources = Sources(data={"cifar100": folders(tmp_path, classes=[*map(str, range(100))], each=1, size=8)})
    files = open_dataset("cifar100", {}, sources).split("test", {"input_size": (3, 32, 32)}).files
    assert all(int(path.parent.name) == label for path, label in files)
    (tmp_path / "train" / "99").rename(tmp_path / "train" / "100")
    with pytest.raises(BenchError, match="class folders .* are numbers; allowed: names, or 0 to 99"):
        open_dataset("cifar100", {}, sources)

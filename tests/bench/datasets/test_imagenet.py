"""Labels of ImageNet's class folders: by WordNet id, or by number; anything else is refused."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable
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


def chosen(root: Path, count: int) -> list[tuple[int, str]]:
    """(label, name) of the pictures that a subset holds."""
    sources = Sources(data={"imagenet": root})
    files = (
        open_dataset("imagenet", {"subset": count}, sources).split("test", {"input_size": (3, 32, 32)}).files
    )
    return [(label, path.stem) for path, label in files]


def laid_out(root: Path, names: list[str], each: Callable[[int], int]) -> Path:
    """Class folders of empty files; those of class i are called i_0, i_1, ..."""
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for copy in range(each(label)):
            (root / name / f"{label}_{copy}.JPEG").touch()
    return root


def test_a_subset_is_stratified_the_same_always_and_in_either_layout(tmp_path):
    by_id = laid_out(tmp_path / "ids", WORDNET, lambda label: 3)
    by_number = laid_out(tmp_path / "numbers", [str(label) for label in range(1000)], lambda label: 3)
    for count in (1, 1500, 2000):
        drawn = chosen(by_id, count)
        each = Counter(label for label, _ in drawn)
        assert len(set(drawn)) == count and drawn == chosen(by_number, count) == sorted(drawn)
        assert max(each.values()) <= min(each[label] for label in range(1000)) + 1
    assert set(chosen(by_id, 1500)) < set(chosen(by_id, 2000)), "a larger subset holds the smaller"
    assert {name.partition("_")[2] for _, name in chosen(by_id, 1000)} == {"0", "1", "2"}, (
        "drawn, not the first"
    )


def test_a_subset_of_a_small_folder_is_all_of_it_and_small_classes_give_what_they_have(tmp_path):
    one_each = laid_out(tmp_path / "one", WORDNET[:40], lambda label: 1)
    assert len(chosen(one_each, 5000)) == 40 and len(chosen(one_each, 7)) == 7
    uneven = laid_out(tmp_path / "uneven", WORDNET[:3], lambda label: (1, 2, 9)[label])
    assert Counter(label for label, _ in chosen(uneven, 8)) == {0: 1, 1: 2, 2: 5}


def test_a_subset_names_what_it_holds_and_leaves_training_pictures_alone(tmp_path):
    root = tmp_path / "imagenet"
    laid_out(root / "val", WORDNET[:4], lambda label: 5)
    laid_out(root / "train", WORDNET[:4], lambda label: 6)
    sources = Sources(data={"imagenet": root})
    whole, part = (fingerprint("imagenet", settings, "test", sources) for settings in ({}, {"subset": 8}))
    assert part["settings"] == {"subset": 8} and part["content"] != whole["content"]
    dataset = open_dataset("imagenet", {"subset": 8}, sources)
    assert dataset.count("test") == 8 and dataset.count("train") == 24
    assert dataset.fingerprint("train") == fingerprint("imagenet", {}, "train", sources)["content"]


@pytest.mark.parametrize("subset", [0, -1, 2.5, True, "5000", None])
def test_a_subset_that_is_no_count_is_refused(tmp_path, subset):
    with pytest.raises(BenchError, match=r"subset must be a whole number of at least 1, not"):
        open_dataset("imagenet", {"subset": subset}, Sources(data={"imagenet": tmp_path}))

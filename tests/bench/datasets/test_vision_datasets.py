"""CIFAR, Flowers and folders of pictures by class: splits, labels, where they are looked for, what is refused."""

import pickle
from pathlib import Path

import numpy
import pytest
import torch
from vision_data import cifar, flowers, folders

from bench.datasets import batches, fingerprint, open_dataset, open_split, places
from bench.engine.task import Sources
from bench.errors import BenchError, MissingData

CONFIG = {"input_size": (3, 48, 48), "interpolation": "bicubic"}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SMI_DATA_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_is_split_by_class_and_enlarged(tmp_path, classes):
    name, train = f"cifar{classes}", 40 if classes == 10 else 400
    sources = Sources(data={name: cifar(tmp_path / "data", classes, train=train, test=classes)})
    dataset = open_dataset(name, {}, sources)
    splits = {split: dataset.split(split, CONFIG) for split in dataset.splits}
    total = 5 * train if classes == 10 else train
    # a tenth of each class, at least one picture of it
    assert {k: len(v) for k, v in splits.items()} == {
        "train": total - (20 if classes == 10 else 100),
        "validation": 20 if classes == 10 else 100,
        "test": classes,
    }
    for split in splits.values():
        pictures, labels = next(iter(batches(split, len(split))))
        assert pictures.shape[1:] == (3, 48, 48) and pictures.dtype == torch.float32
        assert 0 <= pictures.min() and pictures.max() <= 1
        assert labels.bincount(minlength=classes).min() >= 1
        shade = (labels % 10 * 20 + 10) / 255
        assert (pictures.mean((1, 2, 3)) - shade).abs().max() < 0.02, "pictures stay with their labels"
    assert len({dataset.fingerprint(split) for split in dataset.splits}) == 3


def test_channels_and_rows_of_cifar_are_where_they_were(tmp_path):
    folder = cifar(tmp_path, 10, train=2, test=2) / "cifar-10-batches-py"
    picture = numpy.zeros((3, 32, 32), numpy.uint8)
    picture[0, 0, :] = 255  # the first row is red
    batch = {"data": numpy.stack([picture.ravel()] * 2), "labels": [0, 1]}
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    shown, _ = open_dataset("cifar10", {}, Sources(data={"cifar10": tmp_path})).split(
        "test", {"input_size": (3, 32, 32)}
    )[0]
    assert shown[0, 0].min() > 0.99 and shown[0, 1:].max() < 0.01 and shown[1:].max() < 0.01


def test_fingerprints_follow_the_content_and_not_the_place(tmp_path):
    prints = []
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        sources = Sources(data={"cifar10": cifar(tmp_path / place, 10, seed=seed)})
        prints.append(fingerprint("cifar10", {}, "train", sources))
    assert prints[0] == prints[1] != prints[2]
    with pytest.raises(BenchError, match="not the one that was planned with"):
        open_split(prints[0], CONFIG, sources)


def test_a_pickle_that_carries_code_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "was_run"), "w"))

    folder = cifar(tmp_path, 10) / "cifar-10-batches-py"
    (folder / "test_batch").write_bytes(pickle.dumps({"data": Bomb(), "labels": [0]}))
    with pytest.raises(
        BenchError, match=r"test_batch is no batch of CIFAR-10's python version: it carries .*open"
    ):
        open_dataset("cifar10", {}, Sources(data={"cifar10": tmp_path})).fingerprint("test")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    "batch",
    [b"", b"no pickle", pickle.dumps([1]), pickle.dumps({"data": numpy.zeros((1, 7)), "labels": [0]})],
)
def test_a_damaged_batch_is_named(tmp_path, batch):
    folder = cifar(tmp_path, 10) / "cifar-10-batches-py"
    (folder / "data_batch_2").write_bytes(batch)
    with pytest.raises(BenchError, match="data_batch_2 is no batch"):
        open_dataset("cifar10", {}, Sources(data={"cifar10": tmp_path})).fingerprint("train")


def test_labels_out_of_range_are_named(tmp_path):
    folder = cifar(tmp_path, 10) / "cifar-10-batches-py"
    batch = {"data": numpy.zeros((1, 3072), numpy.uint8), "labels": [10]}
    (folder / "test_batch").write_bytes(pickle.dumps(batch))
    with pytest.raises(BenchError, match=r"labels in 10\.\.10, allowed 0\.\.9"):
        open_dataset("cifar10", {}, Sources(data={"cifar10": tmp_path})).fingerprint("test")


def test_flowers_come_in_their_official_splits(tmp_path):
    dataset = open_dataset("flowers102", {}, Sources(data={"flowers102": flowers(tmp_path)}))
    assert dataset.classes == 102
    for split in dataset.splits:
        pictures, labels = next(iter(batches(dataset.split(split, CONFIG), 102)))
        assert sorted(labels.tolist()) == list(range(102))
        red = (labels.float() + 1) * 2 / 255
        assert (pictures[:, 0].mean((1, 2)) - red).abs().max() < 0.02


def test_folders_of_pictures_by_class(tmp_path):
    two = open_dataset("cub200", {}, Sources(data={"cub200": folders(tmp_path / "two", each=10)}))
    assert two.classes == 3 and [len(two.split(split, CONFIG)) for split in two.splits] == [27, 3, 30]
    sources = Sources(data={"mine": folders(tmp_path / "three", ("train", "val", "test"))})
    three = open_dataset("mine", {}, sources)
    assert [len(three.split(split, CONFIG)) for split in three.splits] == [12, 12, 12]
    val = open_dataset(
        "mine", {}, Sources(data={"mine": folders(tmp_path / "val", ("train", "val"), each=10)})
    )
    assert [len(val.split(split, CONFIG)) for split in val.splits] == [27, 3, 30]
    _, labels = next(iter(batches(three.split("test", CONFIG), 12)))
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_cifar_as_pictures_says_so_and_is_sized_as_the_arrays_are(tmp_path):
    names = [f"class{index}" for index in range(10)]
    sources = Sources(data={"cifar10": folders(tmp_path, each=10, classes=names)})
    named = fingerprint("cifar10", {}, "test", sources)
    assert named["form"] == "JPEG copies"
    assert "form" not in fingerprint(
        "cifar10", {}, "test", Sources(data={"cifar10": cifar(tmp_path / "a", 10)})
    )
    split = open_split(named, {"input_size": (3, 32, 32)}, sources)
    assert open_split(named, {"input_size": (3, 32, 32)}, sources) is split, "decoded once a process"
    pictures, labels = split.tensors
    assert pictures.shape == (100, 3, 32, 32) and labels.bincount().tolist() == [10] * 10
    with pytest.raises(BenchError, match="holds 10 class folders, not 100"):
        open_dataset("cifar100", {}, Sources(data={"cifar100": tmp_path}))


def test_a_split_may_be_asked_for_some_classes_alone(tmp_path):
    sources = Sources(data={"cifar10": cifar(tmp_path, 10, test=30)})
    named = fingerprint("cifar10", {}, "test", sources) | {"classes": [2, 7]}
    pictures, labels = open_split(named, {"input_size": (3, 32, 32)}, sources).tensors
    whole = open_dataset("cifar10", {}, sources).split("test", {"input_size": (3, 32, 32)})
    assert sorted(set(labels.tolist())) == [2, 7]
    assert len(pictures) == sum(label in (2, 7) for _, label in whole)


def test_folders_that_make_no_data_set_are_refused(tmp_path):
    one = Sources(data={"mine": folders(tmp_path / "one", classes=("ant",))})
    with pytest.raises(BenchError, match="holds 1 class folders; at least 2"):
        open_dataset("mine", {}, one)
    root = folders(tmp_path / "stranger")
    (root / "test" / "dog").mkdir()
    with pytest.raises(BenchError, match=r"dog is no class of"):
        open_dataset("mine", {}, Sources(data={"mine": root})).fingerprint("test")
    with pytest.raises(MissingData, match=r"does not hold train/<class>/\*.jpg"):
        open_dataset("mine", {}, Sources(data={"mine": tmp_path / "nothing"}))
    with pytest.raises(BenchError, match="unknown setting 'crop'"):
        open_dataset("mine", {"crop": 1}, Sources(data={"mine": root}))


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("cifar10", "data_batch_1"),
        ("cifar100", "cifar-100-python"),
        ("flowers102", "setid.mat"),
        ("cub200", "train/"),
    ],
)
def test_what_is_not_here_says_what_to_put_where(name, layout):
    with pytest.raises(MissingData) as raised:
        open_dataset(name, {}, Sources())
    message = str(raised.value)
    assert f"--data {name}=DIR" in message and layout in message and str(places.cache_folder()) in message
    assert "\n" not in message


def test_the_cache_comes_before_a_download_and_the_folder_given_before_both(tmp_path):
    cifar(tmp_path / "cache" / "cifar10", 10, seed=1)
    here = Sources(data={"cifar10": cifar(tmp_path / "here", 10, seed=2)}, download=True)
    cached = open_dataset("cifar10", {}, Sources(download=True)).fingerprint("test")
    assert cached != open_dataset("cifar10", {}, here).fingerprint("test")


def test_a_download_fills_the_cache_and_its_failure_is_one_line(tmp_path, monkeypatch):
    from torchvision import datasets

    monkeypatch.setattr(datasets, "CIFAR10", lambda root, download: cifar(Path(root), 10))
    assert len(open_dataset("cifar10", {}, Sources(download=True)).split("test", CONFIG)) == 10

    def fail(root, download):
        raise OSError("no route\nto host")

    monkeypatch.setattr(datasets, "CIFAR100", fail)
    with pytest.raises(MissingData, match="fetching it failed: no route to host"):
        open_dataset("cifar100", {}, Sources(download=True))

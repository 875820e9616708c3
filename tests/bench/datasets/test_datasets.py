"""Data sets by name: splits, labels, fingerprints, and one clear line for what is missing or damaged."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from bench.datasets import batches, fingerprint, open_dataset, open_split
from bench.engine.task import Sources
from bench.errors import BenchError, MissingData

DIGITS_CONFIG = {"input_size": (1, 32, 32)}
CONFIG = {"input_size": (3, 32, 32), "interpolation": "bicubic"}
CLASSES = {"n01440764": 0, "n01443537": 1, "n02110185": 250}  # WordNet id -> ImageNet label


def pictures_folder(root: Path, names=CLASSES, each: int = 2) -> Path:
    """Class folders of flat pictures, a colour per class."""
    for shade, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for index in range(each):
            colour = (40 * shade, 10 * index, 200)
            Image.new("RGB", (50, 40), colour).save(root / name / f"{name}_{index}.JPEG")
    return root


def imagenet(root: Path, **settings):
    return open_dataset("imagenet", settings, Sources(data={"imagenet": root}))


def test_digits_are_split_with_every_class_in_its_share():
    dataset = open_dataset("digits", {}, Sources())
    splits = {name: dataset.split(name, DIGITS_CONFIG).tensors for name in dataset.splits}
    assert {name: len(labels) for name, (_, labels) in splits.items()} == {
        "train": 1131,
        "validation": 126,
        "test": 540,
    }
    for pictures, labels in splits.values():
        assert pictures.shape[1:] == (1, 32, 32) and 0 <= pictures.min() and pictures.max() == 1
        shares = labels.bincount(minlength=10) / len(labels)
        assert (shares - 0.1).abs().max() < 0.02


def test_digits_splits_share_no_picture_and_stay_the_same():
    dataset = open_dataset("digits", {}, Sources())
    pictures = torch.cat([dataset.split(name, DIGITS_CONFIG).tensors[0] for name in dataset.splits])
    assert len(pictures) == 1797
    assert len(pictures.flatten(1).unique(dim=0)) == 1797  # scikit-learn's pictures are all different
    prints = {name: dataset.fingerprint(name) for name in dataset.splits}
    assert len(set(prints.values())) == 3
    assert prints == {
        name: open_dataset("digits", {}, Sources()).fingerprint(name) for name in dataset.splits
    }


def test_both_layouts_of_imagenet_give_the_same_test_split(tmp_path):
    bare = imagenet(pictures_folder(tmp_path / "bare"))
    nested_root = tmp_path / "nested"
    pictures_folder(nested_root / "val")
    pictures_folder(nested_root / "train", each=3)
    nested = imagenet(nested_root)
    assert bare.splits == ("test",) and set(nested.splits) == {"test", "train"}
    assert bare.fingerprint("test") == nested.fingerprint("test") != nested.fingerprint("train")
    split = bare.split("test", CONFIG)
    assert sorted(label for _, label in split) == sorted(2 * list(CLASSES.values()))
    assert len(nested.split("train", CONFIG)) == 9


def test_pictures_arrive_whole_in_order_and_in_range(tmp_path):
    split = imagenet(pictures_folder(tmp_path)).split("test", CONFIG)
    images, labels = zip(*batches(split, 4), strict=True)
    assert [len(part) for part in images] == [4, 2]
    images, labels = torch.cat(images), torch.cat(labels)
    assert images.shape == (6, 3, 32, 32) and images.dtype == torch.float32
    assert 0 <= images.min() and images.max() <= 1
    assert (images[:, 2] - 200 / 255).abs().max() < 0.05
    assert labels.tolist() == [0, 0, 1, 1, 250, 250]


def test_crop_pct_is_a_setting(tmp_path):
    root = tmp_path / "val" / "n01440764"
    root.mkdir(parents=True)
    picture = Image.new("RGB", (64, 64), (0, 0, 0))
    picture.paste((255, 255, 255), (0, 0, 4, 64))  # a white rim that a tight crop leaves out
    picture.save(root / "a.png")
    tight, whole = (imagenet(tmp_path, crop_pct=share).split("test", CONFIG)[0][0] for share in (0.5, 1.0))
    assert tight.max() < 0.1 < 0.9 < whole.max()


def test_content_makes_the_fingerprint_and_a_plan_holds_to_it(tmp_path):
    root = pictures_folder(tmp_path / "here")
    elsewhere = pictures_folder(tmp_path / "elsewhere")
    here, there = Sources(data={"imagenet": root}), Sources(data={"imagenet": elsewhere})
    named = fingerprint("imagenet", {}, "test", here)
    assert str(tmp_path) not in str(named)
    assert named == fingerprint("imagenet", {}, "test", there)
    assert len(open_split(named, CONFIG, there)) == 6
    other = {**named, "content": "0" * 16}
    with pytest.raises(BenchError, match="not the one that was planned"):
        open_split(other, CONFIG, here)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "no class folders"),
        (lambda root: (root / "ILSVRC2012_img_val.tar").touch(), "unpack ILSVRC2012_img_val.tar first"),
        (lambda root: (root / "n01440764").mkdir(), "holds no pictures"),
        (lambda root: pictures_folder(root, ("cat", "n01440764")), "cat is no ImageNet class"),
    ],
)
def test_a_folder_that_is_no_imagenet_is_refused(tmp_path, prepare, message):
    prepare(tmp_path)
    with pytest.raises(BenchError, match=message) as refusal:
        dataset = imagenet(tmp_path)
        dataset.fingerprint("test")
        dataset.split("test", CONFIG)
    assert "\n" not in str(refusal.value)


def test_what_is_missing_is_said_with_how_to_give_it(tmp_path):
    with pytest.raises(MissingData, match="--imagenet PATH"):
        open_dataset("imagenet", {}, Sources())
    with pytest.raises(MissingData, match="no train split here"):
        fingerprint("imagenet", {}, "train", Sources(data={"imagenet": pictures_folder(tmp_path)}))
    with pytest.raises(BenchError, match="unknown data set 'mnist'; known: .*digits"):
        open_dataset("mnist", {}, Sources())


@pytest.mark.parametrize("settings", [{"crop_pct": 0}, {"crop_pct": 1.5}, {"crop_pct": "big"}, {"crop": 0.9}])
def test_senseless_settings_are_refused(tmp_path, settings):
    with pytest.raises(BenchError, match="crop"):
        imagenet(pictures_folder(tmp_path), **settings)


def test_a_truncated_picture_is_named(tmp_path):
    root = pictures_folder(tmp_path)
    victim = root / "n01443537" / "n01443537_0.JPEG"
    victim.write_bytes(victim.read_bytes()[:120])
    split = imagenet(root).split("test", CONFIG)
    with pytest.raises(BenchError, match="n01443537_0.JPEG cannot be read"):
        list(split)


def test_digits_refuse_a_model_of_another_size():
    with pytest.raises(BenchError, match="the model takes"):
        open_dataset("digits", {}, Sources()).split("test", {"input_size": (3, 224, 224)})

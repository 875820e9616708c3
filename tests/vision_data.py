"""Small generated data in the layouts of CIFAR's python version, Oxford 102 Flowers, and pictures in class folders."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy
from PIL import Image


def cifar(root: Path, classes: int, train: int = 20, test: int = 10, seed: int = 0) -> Path:
    """A folder that holds CIFAR-10 or -100 as it is unpacked from its archive; a shade for each class."""
    random = numpy.random.default_rng(seed)
    folder = root / ("cifar-10-batches-py" if classes == 10 else "cifar-100-python")
    folder.mkdir(parents=True)
    parts = [f"data_batch_{i}" for i in range(1, 6)] if classes == 10 else ["train"]
    for name in [*parts, "test_batch" if classes == 10 else "test"]:
        count = test if name.startswith("test") else train
        labels = [index % classes for index in range(count)]
        data = numpy.array([[20 * (label % 10)] * 3072 for label in labels], dtype=numpy.uint8)
        data = data + random.integers(0, 20, data.shape, dtype=numpy.uint8)
        key = "labels" if classes == 10 else "fine_labels"
        (folder / name).write_bytes(
            pickle.dumps({"data": data, key: labels, "batch_label": name}, protocol=2)
        )
    return root


def flowers(root: Path, each: int = 1) -> Path:
    """Flowers as unpacked: `each` pictures of 102 classes in each of the three splits."""
    from scipy.io import savemat

    folder = root / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    labels = numpy.arange(3 * each * 102) % 102 + 1
    for number, label in enumerate(labels, 1):
        Image.new("RGB", (24, 20), (int(label) * 2, 40, 90)).save(folder / "jpg" / f"image_{number:05d}.jpg")
    thirds = numpy.split(numpy.arange(1, len(labels) + 1), 3)
    savemat(folder / "imagelabels.mat", {"labels": labels[None]})
    savemat(
        folder / "setid.mat", dict(zip(("trnid", "valid", "tstid"), (t[None] for t in thirds), strict=True))
    )
    return root


def folders(
    root: Path, splits=("train", "test"), classes=("ant", "bee", "cat"), each: int = 4, size: int = 40
) -> Path:
    """Pictures in folders by split and class."""
    for split in splits:
        for shade, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for index in range(each):
                colour = (80 * shade % 256, 20 * index % 256, len(split) * 20)
                Image.new("RGB", (size + 8, size), colour).save(root / split / name / f"{index}.jpg")
    return root

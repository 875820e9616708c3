"""A user's own pictures: how often a file answers as the model does, and as the folders say.

Shapes: B images.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from smi.errors import InvalidImages

BATCH = 16


def open_folder(folder: str, model: nn.Module) -> ImageFolder:
    """Pictures in class folders, as the model's data config takes them; InvalidImages where there are none."""
    if not Path(folder).is_dir():
        raise InvalidImages(f"--data {folder} is no folder")
    config = resolve_model_data_config(model)
    try:
        return ImageFolder(folder, create_transform(**config, is_training=False))
    except FileNotFoundError as cause:
        words = " ".join(str(cause).split())[:160]
        raise InvalidImages(f"--data {folder} holds no pictures in class folders ({words})") from cause


@torch.no_grad()
def compare(model: nn.Module, answers: Callable[[Tensor], Tensor], data: ImageFolder) -> None:
    """Print the agreement and, where there are as many folders as classes, top-1 of both."""
    same = right = right_before = 0
    batches: Any = DataLoader(data, BATCH)
    try:
        for images, labels in batches:
            exact, ours = model(images).argmax(1), answers(images).argmax(1)
            same += int((exact == ours).sum())
            right, right_before = (
                right + int((ours == labels).sum()),
                right_before + int((exact == labels).sum()),
            )
    except OSError as cause:
        raise InvalidImages(f"a picture cannot be read ({' '.join(str(cause).split())[:160]})") from cause
    count = len(data)
    print(f"pictures        the same answer as full precision on {100 * same / count:.1f}% of {count}")
    if len(data.classes) == getattr(model, "num_classes", 0):
        print(f"top-1           {100 * right / count:.1f}%, full precision {100 * right_before / count:.1f}%")

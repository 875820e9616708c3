"""Reference vectors as tensors, and the model they were made with. SMI_GOLDEN_VECTORS names another folder."""

import os
from pathlib import Path

import numpy
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

FOLDER = Path(os.environ.get("SMI_GOLDEN_VECTORS", Path(__file__).parent / "vectors"))


def load(name: str) -> dict[str, torch.Tensor]:
    with numpy.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@pytest.fixture
def vectors():
    return load


@pytest.fixture(scope="session")
def golden_model() -> VisionTransformer:
    arrays = load("model")
    config = {key[4:]: value.tolist() for key, value in arrays.items() if key.startswith("cfg_")}
    model = VisionTransformer(
        img_size=config["img"],
        patch_size=config["p"],
        embed_dim=config["d"],
        depth=config["depth"],
        num_heads=config["h"],
        num_classes=config["nc"],
    )
    model.load_state_dict({key: value for key, value in arrays.items() if not key.startswith("cfg_")})
    model.pretrained_cfg = {
        "mean": (0.5,) * 3,
        "std": (0.25,) * 3,
        "input_size": (3, *model.patch_embed.img_size),
    }
    return model.eval()

"""Reference vectors as tensors, and the model they were made with. SMI_GOLDEN_VECTORS names another folder."""

import os
from pathlib import Path

import numpy
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import smi

FOLDER = Path(os.environ.get("SMI_GOLDEN_VECTORS", Path(__file__).parent / "vectors"))


def load(name: str) -> dict[str, torch.Tensor]:
    with numpy.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def quantized_on():
    return _quantized_on


class _Recorded(smi.SyntheticImages):
    """Images that are normalised already, so they leave [0, 1]: taken as they are, to the bit."""

    def __post_init__(self) -> None:
        pass

    def select(self, indices: slice) -> "_Recorded":
        kept = None if self.kept is None else self.kept[indices]
        return _Recorded(self.pixels[indices], self.targets[indices], kept, self.patch_size)


def _quantized_on(model, calib, weight_bits, activation_bits, kept=None, **options) -> smi.QuantizedViT:
    """smi.quantize on recorded images float32 [B, C, H, W], through kept patches int64 [B, K] or all."""
    targets, channels = torch.zeros(len(calib), dtype=torch.int64), calib.shape[1]
    images = _Recorded(calib, targets, kept, tuple(model.patch_embed.patch_size))
    before = model.pretrained_cfg
    try:
        model.pretrained_cfg = {**before, "mean": (0.0,) * channels, "std": (1.0,) * channels}
        return smi.quantize(model, images, weight_bits, activation_bits, **options)
    finally:
        model.pretrained_cfg = before

"""smi.load_quantized: a quantized model from its file alone."""

from __future__ import annotations

from pathlib import Path

import torch

from smi.errors import InvalidFile, SmiError
from smi.quantization import architecture
from smi.quantization.model import QuantizedViT
from smi.quantization.recipes import Quantizer
from smi.quantization.saving import read


def load_quantized(path: str | Path, device: str | torch.device = "cpu") -> QuantizedViT:
    """The quantized model that QuantizedViT.save wrote, equal to the bit; nothing but the file is needed.

    The file holds tensors and JSON, so reading it runs no code. InvalidFile where it is missing, truncated, of another
    version, changed after it was written, or holds something else.
    """
    tensors, of = read(path)
    try:
        empty = architecture.build(of["architecture"])
        model = QuantizedViT(
            empty,
            of["weight_bits"],
            of["activation_bits"],
            Quantizer.from_json(of["quantizer"]),
            of["whole_stem"],
        )
        model.load_state_dict(tensors)
        model.pretrained_cfg = {**of["data"], **of["normalisation"]}
        model.calibrated_on = of["calibration"]
    except (SmiError, RuntimeError, KeyError, TypeError, AttributeError) as cause:
        words = f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
        raise InvalidFile(f"{path}: cannot be read by this smi and timm ({words})") from cause
    model.need_calibration()
    return model.to(device)

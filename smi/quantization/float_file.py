"""A timm ViT as an ONNX file in float32, by the same operators as a quantized one: what that is compared with."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from smi.quantization.deployment.export import Exported, write_float
from smi.quantization.model import QuantizedViT
from smi.quantization.recipes import Quantizer


def export_float(model: nn.Module, path: str | Path, *, overwrite: bool = False) -> Exported:
    """Write the model, unquantized, for normalised images float32 [B, C, H, W]; raises as QuantizedViT.export."""
    return write_float(QuantizedViT(model, 8, 8, Quantizer("none", placement=())), path, overwrite)

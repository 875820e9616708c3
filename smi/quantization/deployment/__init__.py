"""A quantized ViT as an ONNX file: how its graph is written, checked, and run."""

from smi.quantization.deployment.export import PACKINGS, Exported
from smi.quantization.deployment.profiles import PROFILES

__all__ = ["PACKINGS", "PROFILES", "Exported"]

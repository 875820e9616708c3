"""Fake quantization of a timm ViT after training: recipes, placement, ranges, calibration (paper section 4).

Which quantizers there are is told in recipes.py, where they stand in placement.py; the formulas are in
smi/quantizers.py.
"""

from smi.quantization.calibration import quantize
from smi.quantization.deployment import PACKINGS, PROFILES, Exported
from smi.quantization.float_file import export_float
from smi.quantization.layers import QuantizedConv2d, QuantizedLinear
from smi.quantization.loading import load_quantized
from smi.quantization.model import QuantizedViT
from smi.quantization.placement import PLACEMENTS, PLACES
from smi.quantization.ranges import RANGES
from smi.quantization.recipes import QUANTIZERS, Quantizer, quantizer

__all__ = [
    "PACKINGS",
    "PLACEMENTS",
    "PLACES",
    "PROFILES",
    "QUANTIZERS",
    "RANGES",
    "Exported",
    "QuantizedConv2d",
    "QuantizedLinear",
    "QuantizedViT",
    "Quantizer",
    "export_float",
    "load_quantized",
    "quantize",
    "quantizer",
]

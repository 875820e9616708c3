"""Fake quantization of a timm ViT after training: recipes, placement, ranges, calibration (paper section 4).

Which quantizers there are is told in recipes.py, where they stand in placement.py; the formulas are in
smi/quantizers.py.
"""

from smi.quantization.calibration import quantize
from smi.quantization.layers import QuantizedConv2d, QuantizedLinear
from smi.quantization.loading import load_quantized
from smi.quantization.model import QuantizedViT
from smi.quantization.placement import PLACEMENTS, PLACES
from smi.quantization.ranges import RANGES
from smi.quantization.recipes import QUANTIZERS, Quantizer, quantizer

__all__ = [
    "PLACEMENTS",
    "PLACES",
    "QUANTIZERS",
    "RANGES",
    "QuantizedConv2d",
    "QuantizedLinear",
    "QuantizedViT",
    "Quantizer",
    "load_quantized",
    "quantize",
    "quantizer",
]

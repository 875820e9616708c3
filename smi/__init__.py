"""Sparse Model Inversion: invert, quantize and distil timm Vision Transformers without data.

    images = smi.invert(model, count=32, stopping=smi.Stopping(at=(50, 100, 200, 300), drop=0.3), seed=0)
    small = smi.quantize(model, images, weight_bits=4, activation_bits=8)
    small.save("vit.safetensors"); small.export("vit.onnx")
    student = smi.transfer(model, student, images, steps=500, temperature=20)

Source: Hu et al., "Sparse Model Inversion: Efficient Inversion of Vision Transformers for Data-Free Applications",
ICML 2024.
"""

from smi import flops, published
from smi.checkpoint import Checkpoint
from smi.errors import (
    CheckpointError,
    Interrupted,
    InvalidFile,
    InvalidImages,
    InvalidSetting,
    MissingExtra,
    NonFiniteLoss,
    NotCalibrated,
    SmiError,
    UnsupportedModel,
)
from smi.execution import Execution
from smi.foreign.convert import to_timm
from smi.images import SyntheticImages, concatenate
from smi.inversion import invert
from smi.objectives import TERMS, Objective
from smi.quantization import QUANTIZERS, QuantizedViT, Quantizer, load_quantized, quantize, quantizer
from smi.rebirth import Rebirth
from smi.recipes import RECIPES, Recipe, recipe
from smi.stopping import SCORES, Stopping
from smi.transfer import Transfer, distil, transfer
from smi.transfer_recipes import TRANSFER_RECIPES, TransferRecipe, transfer_recipe

__version__ = "0.1.0"

__all__ = [
    "QUANTIZERS",
    "RECIPES",
    "SCORES",
    "TERMS",
    "TRANSFER_RECIPES",
    "Checkpoint",
    "CheckpointError",
    "Execution",
    "Interrupted",
    "InvalidFile",
    "InvalidImages",
    "InvalidSetting",
    "MissingExtra",
    "NonFiniteLoss",
    "NotCalibrated",
    "Objective",
    "QuantizedViT",
    "Quantizer",
    "Rebirth",
    "Recipe",
    "SmiError",
    "Stopping",
    "SyntheticImages",
    "Transfer",
    "TransferRecipe",
    "UnsupportedModel",
    "concatenate",
    "distil",
    "flops",
    "invert",
    "load_quantized",
    "published",
    "quantize",
    "quantizer",
    "recipe",
    "to_timm",
    "transfer",
    "transfer_recipe",
]

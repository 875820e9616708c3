"""Which quantizers a file keeps: a profile is a placement of smi.quantize, so what is simulated is what is deployed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from smi.quantization.placement import PLACEMENTS
from smi.quantizers import check_choice

if TYPE_CHECKING:
    from smi.quantization.model import QuantizedViT

PROFILES: Mapping[str, str] = {
    "integer": "quantized weights and inputs of matrix products: what integer kernels need, and no more",
    "exact": "every quantizer of the simulation, for parity with it",
}


@torch.no_grad()
def of_profile(small: QuantizedViT, profile: str, reduce_range: bool) -> QuantizedViT:
    """A copy with that profile's quantizers; see QuantizedViT.deployed."""
    check_choice("profile", profile, PROFILES)
    copied = copy.deepcopy(small)
    if profile == "integer":
        read = set(PLACEMENTS["operands"])
        read -= {"normed", "normed_dist"} if isinstance(small.model.head, nn.Identity) else set()
        kept = tuple(place for place in small.recipe.places if place in read)
        for name, _ in list(copied.activation_quantizers()):
            owner, _, place = name.rpartition(".")
            if place not in kept:
                inside = owner if owner == "quantizers" else f"model.{owner}"  # their names leave it out
                copied.get_submodule(inside).add_module(place, nn.Identity())
        copied.recipe = replace(small.recipe, placement=kept)
    if reduce_range and small.weight_bits == 8:
        copied.weight_bits = 7
        copied.quantize_weights()
    return copied

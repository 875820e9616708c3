"""The places of a ViT whose activations can be quantized, and the sets of them that have a name.

A model has each place of STEM and HEAD once and each of BLOCK once a block. In the order of a forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping

STEM: Mapping[str, str] = {
    "image": "the patches' pixels, the input of the patch convolution",
    "patches": "the patch embedding's output",
    "concatenated": "tokens, once the class token is before them",
    "positions": "the position embedding",
    "embedded": "tokens plus positions",
}
BLOCK: Mapping[str, str] = {
    "norm1_out": "norm1's output, the input of qkv",
    "qkv_out": "the output of qkv",
    "query": "the first operand of query x key",
    "key": "its second operand",
    "scores": "query x key, scaled, before softmax",
    "softmax": "the softmax output, the first operand of attention x value",
    "value": "its second operand",
    "mixed": "attention x value, the input of proj",
    "proj_out": "the output of proj",
    "sum1": "the first residual sum",
    "norm2_out": "norm2's output, the input of fc1",
    "act_out": "the activation function's output, the input of fc2",
    "mlp_out": "the output of fc2",
    "sum2": "the second residual sum",
}
HEAD: Mapping[str, str] = {
    "normed": "what the head reads: the final norm's class token, or the pooled tokens",
    "normed_dist": "the same of a distilled model's second head",
    "logits": "the logits",
}
PLACES: Mapping[str, str] = {**STEM, **BLOCK, **HEAD}

_INPUTS = ("image", "norm1_out", "mixed", "norm2_out", "act_out", "normed", "normed_dist")
_OPERANDS = ("query", "key", "softmax", "value")
PLACEMENTS: Mapping[str, tuple[str, ...]] = {
    # PSAQ-ViT and SMI round the residual stream and what lies between matrix products too.
    "psaq": tuple(place for place in PLACES if place not in _OPERANDS),
    # Inputs of the matrix products with weights: what integer kernels need.
    "inputs": tuple(place for place in PLACES if place in _INPUTS),
    # Inputs of all matrix products, attention's two as well.
    "operands": tuple(place for place in PLACES if place in _INPUTS + _OPERANDS),
}
# What is quantized per channel before it is reparameterised, and the layer that reads it.
READ_BY: Mapping[str, str] = {"norm1_out": "qkv", "norm2_out": "fc1"}

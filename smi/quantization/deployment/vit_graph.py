"""The forward pass of a QuantizedViT, step by step as smi/quantization/model.py and blocks.py run it, as a graph.

Shapes: B images (dynamic), C channels, H x W pixels, P patches, S prefix tokens, N = S + P tokens, D width, h heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy
from onnx import helper
from torch import nn

from smi.quantization.blocks import QuantizedAttention, QuantizedBlock
from smi.quantization.deployment.operators import linear, part, pool, product, quantizer
from smi.quantization.deployment.writer import GraphWriter
from smi.vit import normalisation

if TYPE_CHECKING:
    from smi.quantization.model import QuantizedViT


class VitGraph:
    """Writes the model's nodes into `graph`; `result` is the name of the logits (or features), [B, *logit_shape]."""

    def __init__(self, small: QuantizedViT, image: str, preprocess: bool, packing: str) -> None:
        self.graph, self.small, self.model, self.packing = GraphWriter(), small, small.model, packing
        x = self._normalised(image) if preprocess else image
        x = self._embedded(x)
        for index, block in enumerate(small.blocks):
            x = self._block(x, block, f"blocks.{index}")
        self.result = self._classified(part(self.graph, x, self.model.norm, "norm"))
        size = getattr(self.model.head, "out_features", self.model.patch_embed.proj.out_channels)
        pooled = self.model.global_pool or "head_dist" in small.heads
        every = small.tokens.grid.patches + small.tokens.prefix_tokens
        self.logit_shape = [size] if pooled else [every, size]

    def _quantizer(self, x: str, module: nn.Module, name: str) -> str:
        return quantizer(self.graph, x, module, name)

    def _linear(self, x: str, layer: Any, name: str, reader: nn.Module) -> str:
        return linear(self.graph, x, layer, name, reader, self.packing)

    def _normalised(self, image: str) -> str:
        mean, std = normalisation(self.small)
        return self.graph.arithmetic(
            "Div", self.graph.arithmetic("Sub", image, mean, "less_mean"), std, "normalised"
        )

    def _embedded(self, image: str) -> str:
        graph, quantizers, tokens = self.graph, self.small.quantizers, self.small.tokens
        grid, channels = tokens.grid, tokens.channels
        x = graph.reshape(
            image, "cut", 0, channels, grid.rows, grid.patch_height, grid.columns, grid.patch_width
        )
        x = graph.transpose(x, "cut.patches", 0, 2, 4, 1, 3, 5)
        size = channels * grid.patch_height * grid.patch_width
        x = graph.reshape(x, "pixels_of_patches", 0, grid.patches, size)
        x = self._quantizer(x, quantizers["image"], "image")
        x = self._linear(x, self.model.patch_embed.proj, "patch_embed.proj", quantizers["image"])
        x = part(graph, x, self.model.patch_embed.norm, "patch_embed.norm")
        x = self._quantizer(x, quantizers["patches"], "patches")
        prefix = tokens.prefix()
        if prefix is not None:
            batch = graph.op("Shape", [image], "batch", start=0, end=1)
            sizes = graph.shape("prefix.sizes", *prefix.shape[1:])
            shape = graph.op("Concat", [batch, sizes], "prefix.shape", axis=0)
            first = graph.op("Expand", [graph.constant("prefix.tokens", prefix), shape], "prefix")
            x = graph.op("Concat", [first, x], "tokens", axis=1)
        x = self._quantizer(x, quantizers["concatenated"], "concatenated")
        positions = self.small.positions(1, None)
        if positions is not None:
            x = graph.arithmetic("Add", x, quantizers["positions"](positions), "placed")
        x = self._quantizer(x, quantizers["embedded"], "embedded")
        return part(graph, x, self.model.norm_pre, "norm_pre")

    def _block(self, x: str, block: QuantizedBlock, name: str) -> str:
        graph = self.graph
        y = part(graph, x, block.norm1, f"{name}.norm1")
        y = self._quantizer(y, block.norm1_out, f"{name}.norm1_out")
        y = self._attention(y, block.attn, f"{name}.attn", block.norm1_out)
        x = graph.op("Add", [x, part(graph, y, block.ls1, f"{name}.ls1")], f"{name}.residual1")
        x = self._quantizer(x, block.sum1, f"{name}.sum1")
        y = part(graph, x, block.norm2, f"{name}.norm2")
        y = self._quantizer(y, block.norm2_out, f"{name}.norm2_out")
        mlp = block.mlp
        y = self._linear(y, mlp.fc1, f"{name}.mlp.fc1", block.norm2_out)
        y = self._quantizer(part(graph, y, mlp.act, f"{name}.mlp.act"), mlp.act_out, f"{name}.mlp.act_out")
        y = self._linear(y, mlp.fc2, f"{name}.mlp.fc2", mlp.act_out)
        y = self._quantizer(y, mlp.mlp_out, f"{name}.mlp.mlp_out")
        x = graph.op("Add", [x, part(graph, y, block.ls2, f"{name}.ls2")], f"{name}.residual2")
        return self._quantizer(x, block.sum2, f"{name}.sum2")

    def _attention(self, x: str, attn: QuantizedAttention, name: str, reader: nn.Module) -> str:
        graph, width = self.graph, attn.proj.in_features
        qkv = self._quantizer(
            self._linear(x, attn.qkv, f"{name}.qkv", reader), attn.qkv_out, f"{name}.qkv_out"
        )
        names = [f"{name}.{one}_of_tokens" for one in ("query", "key", "value")]
        sizes = graph.shape(f"{name}.widths", width, width, width)
        graph.nodes.append(helper.make_node("Split", [qkv, sizes], names, name=f"{name}.qkv/Split", axis=-1))
        query, key, value = (self._by_head(one, attn.heads, width) for one in names)
        query, key = (
            part(graph, query, attn.q_norm, f"{name}.q_norm"),
            part(graph, key, attn.k_norm, f"{name}.k_norm"),
        )
        query = self._quantizer(query, attn.query, f"{name}.query")
        key = graph.transpose(key, f"{name}.key_transposed", 0, 1, 3, 2)
        key = self._quantizer(key, attn.key, f"{name}.key")
        scores = product(graph, query, key, (attn.query, attn.key), f"{name}.scores_unscaled")
        scores = graph.arithmetic("Mul", scores, float(attn.scale), f"{name}.scaled")
        scores = self._quantizer(scores, attn.scores, f"{name}.scores")
        shares = graph.op("Softmax", [scores], f"{name}.softmaxed", axis=-1)
        shares = self._quantizer(shares, attn.softmax, f"{name}.softmax")
        value = self._quantizer(value, attn.value, f"{name}.value")
        mixed = product(graph, shares, value, (attn.softmax, attn.value), f"{name}.mixed_by_head")
        mixed = graph.transpose(mixed, f"{name}.mixed_by_token", 0, 2, 1, 3)
        mixed = graph.reshape(mixed, f"{name}.mixed_heads", 0, 0, width)
        mixed = self._quantizer(mixed, attn.mixed, f"{name}.mixed")
        out = self._linear(mixed, attn.proj, f"{name}.proj", attn.mixed)
        return self._quantizer(out, attn.proj_out, f"{name}.proj_out")

    def _by_head(self, x: str, heads: int, width: int) -> str:
        """[B, N, D] -> [B, h, N, D/h]."""
        x = self.graph.reshape(x, f"{x}.cut", 0, 0, heads, width // heads)
        return self.graph.transpose(x, f"{x}.by_head", 0, 2, 1, 3)

    def _classified(self, x: str) -> str:
        graph, quantizers, model = self.graph, self.small.quantizers, self.model
        if "head_dist" not in self.small.heads:
            x = part(graph, pool(graph, x, model, self.small.tokens.grid.patches), model.fc_norm, "fc_norm")
            x = self._head(x, "head", "normed", pooled=bool(model.global_pool))
            return self._quantizer(x, quantizers["logits"], "logits")
        logits = []
        for index, (head, place) in enumerate((("head", "normed"), ("head_dist", "normed_dist"))):
            where = graph.constant(f"{place}.token", index, numpy.int64)
            token = graph.op("Gather", [x, where], f"{place}.taken", axis=1)
            logits.append(self._head(token, head, place, pooled=True))
        mean = graph.arithmetic("Div", graph.op("Add", logits, "heads.sum"), 2.0, "heads.mean")
        return self._quantizer(mean, quantizers["logits"], "logits")

    def _head(self, x: str, name: str, place: str, pooled: bool) -> str:
        """The head, of one token an image: onnxruntime would make a product of two dimensions a float Gemm."""
        layer, reader = getattr(self.model, name), self.small.quantizers[place]
        if isinstance(layer, nn.Identity):
            return self._quantizer(x, reader, place)
        x = self.graph.reshape(x, f"{place}.one_token", 0, 1, layer.in_features) if pooled else x
        x = self._linear(self._quantizer(x, reader, place), layer, name, reader)
        return self.graph.reshape(x, f"{name}.of_image", 0, layer.out_features) if pooled else x

"""timm's Block with a quantizer in each of its places (smi/quantization/placement.py).

Shapes: B images, N tokens, D width, h heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from smi.quantization.layers import QuantizedLinear

Make = Callable[[str], nn.Module]  # place -> its quantizer, or Identity where there is none


class QuantizedAttention(nn.Module):
    """timm's Attention with its places: qkv_out, query, key, scores, softmax, value, mixed, proj_out."""

    def __init__(self, attention: Any, make: Make) -> None:
        super().__init__()
        self.heads, self.scale = attention.num_heads, attention.scale
        self.qkv, self.proj = QuantizedLinear(attention.qkv), QuantizedLinear(attention.proj)
        self.q_norm, self.k_norm = attention.q_norm, attention.k_norm
        self.qkv_out, self.query, self.key = make("qkv_out"), make("query"), make("key")
        self.scores, self.softmax, self.value = make("scores"), make("softmax"), make("value")
        self.mixed, self.proj_out = make("mixed"), make("proj_out")

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv_out(self.qkv(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # [B, h, N, D/h] each
        query, key = self.query(self.q_norm(query)), self.key(self.k_norm(key))
        scores = self.scores((query @ key.transpose(-2, -1)) * self.scale)
        mixed = self.softmax(scores.softmax(dim=-1)) @ self.value(value)
        return self.proj_out(self.proj(self.mixed(mixed.transpose(1, 2).flatten(2))))


class QuantizedMlp(nn.Module):
    """timm's Mlp with its places: act_out, mlp_out."""

    def __init__(self, mlp: Any, make: Make) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = QuantizedLinear(mlp.fc1), mlp.act, QuantizedLinear(mlp.fc2)
        self.act_out, self.mlp_out = make("act_out"), make("mlp_out")

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp_out(self.fc2(self.act_out(self.act(self.fc1(x)))))


class QuantizedBlock(nn.Module):
    """timm's Block with its places: norm1_out, those of attention, sum1, norm2_out, those of the MLP, sum2."""

    def __init__(self, block: Any, make: Make) -> None:
        super().__init__()
        self.norm1, self.norm1_out = block.norm1, make("norm1_out")
        self.attn, self.ls1, self.sum1 = QuantizedAttention(block.attn, make), block.ls1, make("sum1")
        self.norm2, self.norm2_out = block.norm2, make("norm2_out")
        self.mlp, self.ls2, self.sum2 = QuantizedMlp(block.mlp, make), block.ls2, make("sum2")

    def forward(self, x: Tensor) -> Tensor:
        x = self.sum1(x + self.ls1(self.attn(self.norm1_out(self.norm1(x)))))
        return self.sum2(x + self.ls2(self.mlp(self.norm2_out(self.norm2(x)))))

"""A timm ViT with DINOv2's classifier. Shapes: B images, N tokens, D width."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


class ClassAndMeanViT(VisionTransformer):
    """A timm ViT whose classifier reads the class token beside the mean of the patch tokens, as DINOv2's does."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, global_pool="avg", fc_norm=False)
        if self.num_classes > 0:
            self.head = nn.Linear(2 * self.embed_dim, self.num_classes)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Normed tokens [B, N, D] -> logits [B, classes], or what the classifier reads, [B, 2 * D]."""
        both = torch.cat([x[:, 0], x[:, self.num_prefix_tokens :].mean(dim=1)], dim=1)
        both = self.head_drop(both)
        return both if pre_logits else self.head(both)

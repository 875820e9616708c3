"""Adapter for dense inversion of CNNs with BatchNorm, as DeepInversion does it (paper Table 1's ResNet18).

Any torchvision or timm classifier will do; its image size and normalisation come from its timm data config, which
for others means 3 x 224 x 224 pixels and ImageNet's statistics unless `model.pretrained_cfg` says otherwise.
Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from timm.data import resolve_model_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from smi.errors import UnsupportedModel
from smi.geometry import PatchGrid
from smi.vit import frozen
from smi.watching import watched


def handles(model: nn.Module) -> bool:
    """Is this a model with BatchNorm statistics and without a ViT's patches?"""
    is_other = isinstance(model, nn.Module) and not isinstance(model, VisionTransformer)
    return is_other and bool(_batchnorms(model))


class ConvModel:
    """A CNN as the inversion sees it (smi.adapters.Adapted): a model without patches."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.channels, height, width = resolve_model_data_config(model)["input_size"]
        self.grid = PatchGrid(1, 1, height, width)
        first = next(model.parameters())
        with frozen(model), torch.no_grad():
            try:
                logits = model(
                    torch.zeros(1, self.channels, height, width, device=first.device, dtype=first.dtype)
                )
            except RuntimeError as cause:
                raise UnsupportedModel(
                    f"{type(model).__name__} does not take {self.channels}x{height}x{width} images "
                    f"(set model.pretrained_cfg['input_size']): {str(cause).splitlines()[0]}"
                ) from cause
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise UnsupportedModel(f"{type(model).__name__} does not return logits [B, classes]")
        self.classes = logits.shape[1]

    @property
    def num_patches(self) -> int:
        return 0

    @property
    def patch_size(self) -> tuple[int, int]:
        return 0, 0

    def observe(self, view: Tensor, kept: Tensor | None, needs: frozenset[str]) -> dict[str, Any]:
        """One forward pass with what an objective needs beside the logits: fields of `smi.objectives.Step`."""
        with self.hooked(needs) as captured:
            logits = self.forward(view, kept)
        return self.fields(logits, captured, needs)

    def forward(self, image: Tensor, kept: Tensor | None = None) -> Tensor:
        """Logits [B, classes] of images [B, C, H, W], always whole."""
        logits: Tensor = self.model(image)
        return logits

    __call__ = forward

    def cls_attention(self, image: Tensor, kept: Tensor | None = None) -> Tensor:
        """Raises UnsupportedModel, as `need_class_token` does."""
        raise self._no_class_token()

    def attention_maps(self, image: Tensor, kept: Tensor | None = None) -> Iterator[Tensor]:
        """Raises UnsupportedModel, as `need_class_token` does."""
        raise self._no_class_token()

    @property
    def reads_class_token(self) -> bool:
        return False

    def need_class_token(self) -> None:
        """Raises UnsupportedModel: a CNN has no class token."""
        raise self._no_class_token()

    def _no_class_token(self) -> UnsupportedModel:
        return UnsupportedModel(
            f"{type(self.model).__name__} has no class token, whose attention could rank patches"
        )

    def need_kept_patches(self) -> None:
        """Raises UnsupportedModel: a CNN has no patches."""
        raise UnsupportedModel(
            f"stopping needs the patches of a timm VisionTransformer; {type(self.model).__name__} has none"
        )

    def hooked(self, needs: frozenset[str]) -> AbstractContextManager[list[Any]]:
        """While open, hooks append to the list what `fields` makes those fields from."""
        return self.batch_statistics() if "batchnorm" in needs else nullcontext([])

    def fields(self, logits: Tensor, captured: list[Any], needs: frozenset[str]) -> dict[str, Any]:
        """The fields of `smi.objectives.Step` from the logits of a pass and what hooks captured during it."""
        return {"logits": logits, "batchnorm": captured} if "batchnorm" in needs else {"logits": logits}

    def batch_statistics(self) -> AbstractContextManager[list[tuple[Tensor, Tensor, Tensor, Tensor]]]:
        """While open, forward passes append (mean, biased variance, running mean, running variance) per BatchNorm.

        The order is that of the forward pass, so the first is the one nearest to the image; float32, differentiable.
        """
        return watched(_batchnorms(self.model), _statistics)


def _statistics(layer: Any, features: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    features = features.float()
    others = [dimension for dimension in range(features.ndim) if dimension != 1]
    variance, mean = torch.var_mean(features, others, correction=0)
    return mean, variance, layer.running_mean, layer.running_var


def _batchnorms(model: nn.Module) -> list[nn.Module]:
    kinds = nn.modules.batchnorm._BatchNorm
    return [m for m in model.modules() if isinstance(m, kinds) and m.running_mean is not None]

"""What the inversion needs of a model, and the adapters that give it: of ViTs (smi/vit.py), of CNNs (smi/cnn.py).

Shapes: B images, C channels, H x W pixels, P patches of ph x pw pixels, K kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor, nn

from smi.cnn import ConvModel, handles
from smi.geometry import PatchGrid
from smi.vit import TokenModel, adapt


class Adapted(Protocol):
    """A model as the inversion sees it. The model itself is held, and never changed.

    grid, num_patches, patch_size: how its images are cut; of a model without patches one cell, 0 and (0, 0).
    channels: C; classes: the number of its logits.
    """

    model: nn.Module
    grid: PatchGrid
    channels: int
    classes: int

    @property
    def num_patches(self) -> int: ...

    @property
    def patch_size(self) -> tuple[int, int]: ...

    def forward(self, image: Tensor, kept: Tensor | None = None) -> Tensor:
        """Logits [B, classes] of image [B, C, H, W] through kept patches int64 [B, K] (None: all of them), or of
        those patches' pixels [B, K, C*ph*pw]."""
        ...

    def __call__(self, image: Tensor, kept: Tensor | None = None) -> Tensor:
        """As `forward`: what a score calls."""
        ...

    def observe(self, view: Tensor, kept: Tensor | None, needs: frozenset[str]) -> dict[str, Any]:
        """One forward pass; the fields of `smi.objectives.Step` that an objective needs, logits among them."""
        ...

    def hooked(self, needs: frozenset[str]) -> AbstractContextManager[list[Any]]:
        """While open, hooks append to the list what `fields` makes those fields from."""
        ...

    def fields(self, logits: Tensor, captured: list[Any], needs: frozenset[str]) -> dict[str, Any]:
        """The fields of `smi.objectives.Step` from the logits of a pass and what hooks captured during it."""
        ...

    def cls_attention(self, image: Tensor, kept: Tensor | None = None) -> Tensor:
        """Attention [B, K] of the last block from CLS to each patch; UnsupportedModel where there is none."""
        ...

    def attention_maps(self, image: Tensor, kept: Tensor | None = None) -> Iterator[Tensor]:
        """Attention [B, N, N] of each block, mean over heads; UnsupportedModel where there is none."""
        ...

    @property
    def reads_class_token(self) -> bool:
        """Whether the classifier reads the class token, by whose attention patches are ranked."""
        ...

    def need_class_token(self) -> None:
        """Raise UnsupportedModel where the model has no class token, whose attention could rank patches."""
        ...

    def need_kept_patches(self) -> None:
        """Raise UnsupportedModel where what the model answers for kept patches alone is not known."""
        ...


def adapter_of(model: nn.Module) -> TokenModel | ConvModel:
    """The adapter that fits: of a CNN with BatchNorm, or of a timm VisionTransformer; raises UnsupportedModel."""
    return ConvModel(model) if handles(model) else adapt(model)

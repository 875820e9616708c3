"""A converted model without its weights, as plain values from which timm's class is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, Literal

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import DropPath, SwiGLU, get_act_layer
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from smi.class_and_mean import ClassAndMeanViT
from smi.errors import UnsupportedModel

Reads = Literal["class", "mean", "both", "two"]
# what others call an activation -> what timm calls it
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


@dataclass(frozen=True)
class Blueprint:
    """What timm's class is told. image_size, patch_size: (rows, columns) of pixels; hidden: width of the MLP.

    reads: what the classifier sees: the "class" token, the "mean" of the patch tokens, "both" side by side, or class
    and distillation token each by a head of its own ("two"). registers: further tokens after the class token;
    positions_of_prefix: whether class token and registers have positions. classes: 0 for a backbone.
    dropout: after positions, attention and MLP; inner_dropout: inside the MLP, after its activation.
    labels: names of the classes, if the model knows them. mean, std, interpolation, crop_pct: of the pictures.
    """

    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    width: int
    depth: int
    heads: int
    hidden: int
    classes: int
    eps: float
    channels: int = 3
    activation: str = "gelu"
    qkv_bias: bool = True
    head_bias: bool = True
    layer_scale: bool = False
    swiglu: bool = False
    registers: int = 0
    positions_of_prefix: bool = True
    norm_before: bool = False
    norm_after: bool = True
    reads: Reads = "class"
    dropout: float = 0.0
    inner_dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise UnsupportedModel(
                f"the activation {self.activation!r} is not handled; allowed: {', '.join(sorted(ACTIVATIONS))}"
            )
        if not self.heads or self.width % self.heads:
            raise UnsupportedModel(f"{self.heads} heads do not divide the width {self.width}")

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` makes an equal blueprint."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Blueprint:
        """The blueprint that `to_json` described."""
        known = {field.name for field in fields(cls)}
        given: dict[str, Any] = {name: value for name, value in values.items() if name in known}
        for name, value in given.items():
            given[name] = tuple(value) if isinstance(value, list) else value
        return cls(**given)

    def build(self) -> VisionTransformer:
        """The model with random weights, in evaluation mode. torch's global random numbers are left as they were."""
        kinds = {"two": VisionTransformerDistilled, "both": ClassAndMeanViT}
        kind = kinds.get(self.reads, VisionTransformer)
        settings: dict[str, Any] = {
            "img_size": self.image_size,
            "patch_size": self.patch_size,
            "in_chans": self.channels,
            "num_classes": self.classes,
            "embed_dim": self.width,
            "depth": self.depth,
            "num_heads": self.heads,
            "mlp_ratio": (self.hidden + 0.5) / self.width,  # timm rounds the product down
            "qkv_bias": self.qkv_bias,
            "init_values": 1.0 if self.layer_scale else None,
            "no_embed_class": not self.positions_of_prefix,
            "reg_tokens": self.registers,
            "pre_norm": self.norm_before,
            "pos_drop_rate": self.dropout,
            "proj_drop_rate": self.dropout,
            "attn_drop_rate": self.attention_dropout,
            "norm_layer": partial(nn.LayerNorm, eps=self.eps),
            "act_layer": get_act_layer(ACTIVATIONS[self.activation]),
        }
        if self.swiglu:
            settings["mlp_layer"] = SwiGLU
        if self.reads == "mean":
            settings |= {"global_pool": "avg", "fc_norm": False}
        with torch.random.fork_rng(devices=[]):
            model = kind(**settings)
        if not self.norm_after:
            model.norm = nn.Identity()
        if not self.head_bias:
            model.head.bias = None
        for block in model.blocks:
            if hasattr(block.mlp, "drop1"):
                block.mlp.drop1.p = self.inner_dropout
            if self.drop_path:
                block.drop_path1, block.drop_path2 = DropPath(self.drop_path), DropPath(self.drop_path)
        model.pretrained_cfg = {
            "input_size": (self.channels, *self.image_size),
            "mean": self.mean,
            "std": self.std,
            "interpolation": self.interpolation,
            "crop_pct": self.crop_pct,
            "crop_mode": "center",
            "num_classes": self.classes,
            "label_names": self.labels or None,
        }
        return model.eval()

    def load(self, tensors: Mapping[str, Tensor], kind: str) -> VisionTransformer:
        """The model with these weights, by timm's names, on their device and in their dtype.

        kind: of the original, for messages. Raises UnsupportedModel where the weights are not the model's.
        """
        model = self.build()
        expected = model.state_dict()
        missing, further = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
        if missing or further:
            what = f"it lacks {missing[0]}" if missing else f"it also has {further[0]}"
            raise UnsupportedModel(f"{kind} is not as its library makes it: {what} (in timm's names)")
        for name, value in expected.items():
            if tensors[name].shape != value.shape:
                found, wanted = list(tensors[name].shape), list(value.shape)
                raise UnsupportedModel(
                    f"{kind} is not as its library makes it: {name} (in timm's names) is {found}, expected {wanted}"
                )
        first = next(iter(tensors.values()))
        model.to(device=first.device, dtype=first.dtype)
        model.load_state_dict(tensors)
        return model

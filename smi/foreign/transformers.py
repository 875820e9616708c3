"""From transformers' ViTs, in memory or in a folder, to a blueprint and its weights. Shapes: D width, P patches.

Names of weights differ between transformers 4 and 5, and between what lies in memory and in a file: RENAMES reads all
of them. What a config leaves out is the default of its class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smi.errors import UnsupportedModel
from smi.foreign.blueprint import Blueprint, Reads
from smi.foreign.positions import resampled


@dataclass(frozen=True)
class Kind:
    """One class of transformers.

    reads: as in Blueprint; default_eps: of its config. registers: tokens between class token and patches, how many of
    them by default. resamples: its positions, for images of another size.
    """

    reads: Reads
    default_eps: float
    registers: int = 0
    resamples: bool = False
    norm_before: bool = False
    norm_after: bool = True
    defaults: tuple[tuple[str, Any], ...] = ()


_CLIP: tuple[tuple[str, Any], ...] = (("hidden_act", "quick_gelu"),)
KINDS: dict[str, Kind] = {
    "ViTForImageClassification": Kind("class", 1e-12),
    "ViTModel": Kind("class", 1e-12),
    "DeiTForImageClassification": Kind("class", 1e-12, registers=1),
    "DeiTForImageClassificationWithTeacher": Kind("two", 1e-12),
    "Dinov2ForImageClassification": Kind("both", 1e-6, resamples=True),
    "Dinov2Model": Kind("class", 1e-6, resamples=True),
    "Dinov2WithRegistersForImageClassification": Kind("both", 1e-6, resamples=True, registers=4),
    "Dinov2WithRegistersModel": Kind("class", 1e-6, resamples=True, registers=4),
    "CLIPForImageClassification": Kind("mean", 1e-5, norm_before=True, norm_after=False, defaults=_CLIP),
    "CLIPVisionModel": Kind("class", 1e-5, norm_before=True, defaults=_CLIP),
    "CLIPVisionModelWithProjection": Kind("class", 1e-5, norm_before=True, defaults=_CLIP),
}
REASONS = {
    "beit": "its blocks add relative positions to the attention",
    "data2vec_vision": "its blocks add relative positions to the attention",
    "dinov3_vit": "its blocks rotate queries and keys by position",
    "swin": "its blocks attend within windows",
    "swinv2": "its blocks attend within windows",
    "siglip": "its head pools by attention",
    "siglip2": "its head pools by attention",
}
IGNORED = (r"(^|\.)mask_token$", r"(^|\.)position_ids$", r"(^|\.)pooler\.")
RENAMES = (
    (r"^(?:vit|deit|dinov2|dinov2_with_registers|vision_model)\.(?:vision_model\.)?", ""),
    (r"^embeddings\.(?:cls_token|class_embedding)$", "cls_token"),
    (r"^embeddings\.(?:register_tokens|distillation_token)$", "reg_token"),
    (r"^embeddings\.position_embeddings?(?:\.weight)?$", "pos_embed"),
    (r"^embeddings\.(?:patch_embeddings\.projection|patch_embedding)\.", "patch_embed.proj."),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^(?:layernorm|post_layernorm)\.", "norm."),
    (r"^(?:classifier|cls_classifier|visual_projection)\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
    (r"^(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"\.(?:layernorm_before|layer_norm1)\.", ".norm1."),
    (r"\.(?:layernorm_after|layer_norm2)\.", ".norm2."),
    (
        r"\.(?:attention\.attention|attention|self_attn)\.(query|key|value|q_proj|k_proj|v_proj)\.",
        r".attn.\1.",
    ),
    (r"\.(?:attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.(?:output\.dense|mlp\.weights_out|mlp\.down_proj)\.", ".mlp.fc2."),
    (r"\.mlp\.gate_proj\.", ".mlp.fc1_g."),
    (r"\.mlp\.up_proj\.", ".mlp.fc1_x."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
)
QKV = (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))


def converted(
    kind: str,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    image_size: tuple[int, int] | None = None,
) -> tuple[Blueprint, dict[str, Tensor]]:
    """(blueprint, weights by timm's names) of a model of transformers.

    kind: name of its class; config: as `config.to_dict()` or config.json has it; state: its weights.
    image_size: (rows, columns) of pixels, if other than the config's: for DINOv2, which resamples its positions.
    Raises UnsupportedModel that names what is not handled.
    """
    if kind not in KINDS:
        raise UnsupportedModel(_refusal(kind, config))
    told = KINDS[kind]
    config = {**dict(told.defaults), **config.get("vision_config", config), **_labels(config)}
    tensors = _in_timms_names(state)
    for name in ("patch_embed.proj.weight", "pos_embed", "cls_token", "blocks.0.norm1.weight"):
        if name not in tensors:
            raise UnsupportedModel(
                f"{kind} is not as its library makes it: it lacks {name} (in timm's names)"
            )
    width, channels, *patch = tensors["patch_embed.proj.weight"].shape
    native = _pair(config.get("image_size", 224))
    size = native if image_size is None else image_size
    if size != native and not told.resamples:
        rows, columns = native
        raise UnsupportedModel(
            f"{kind} takes images of {rows} x {columns} pixels alone, not {size[0]} x {size[1]}"
        )
    prefix = 1 + (0 if told.resamples else told.registers) + (told.reads == "two")
    grids = [(rows // patch[0], columns // patch[1]) for rows, columns in (native, size)]
    _shape_prefix(tensors, told, width)
    tensors["pos_embed"] = resampled(
        tensors["pos_embed"], grids[0], grids[1], prefix, antialias=bool(told.registers)
    )
    with_registers = told.resamples and "reg_token" in tensors
    if with_registers:  # registers have no position: the class token takes its own along
        tensors["cls_token"] = tensors["cls_token"] + tensors["pos_embed"][:, :1]
        tensors["pos_embed"] = tensors["pos_embed"][:, 1:]
    head = tensors.get("head.weight")
    labels = config["labels"] if head is not None and len(config["labels"]) == len(head) else ()
    swiglu = "blocks.0.mlp.fc1_g.weight" in tensors
    if not told.norm_after:
        tensors = {name: t for name, t in tensors.items() if not name.startswith("norm.")}
    blueprint = Blueprint(
        image_size=size,
        patch_size=(patch[0], patch[1]),
        channels=channels,
        width=width,
        depth=1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")),
        heads=config.get("num_attention_heads", 12),
        hidden=_rows(tensors, "blocks.0.mlp.fc1_g.weight" if swiglu else "blocks.0.mlp.fc1.weight", kind),
        classes=0 if head is None else len(head),
        head_bias=head is None or "head.bias" in tensors,
        eps=config.get("layer_norm_eps", told.default_eps),
        activation="silu" if swiglu else config.get("hidden_act", "gelu"),
        qkv_bias="blocks.0.attn.qkv.bias" in tensors,
        layer_scale="blocks.0.ls1.gamma" in tensors,
        swiglu=swiglu,
        registers=tensors["reg_token"].shape[1] if "reg_token" in tensors else 0,
        positions_of_prefix=not with_registers,
        norm_before=told.norm_before,
        norm_after=told.norm_after,
        reads=told.reads,
        dropout=config.get("hidden_dropout_prob", 0.0),
        attention_dropout=config.get("attention_probs_dropout_prob", config.get("attention_dropout", 0.0)),
        drop_path=config.get("drop_path_rate", 0.0),
        labels=labels,
    )
    return blueprint, tensors


def _in_timms_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by timm's names; query, key and value in one, SwiGLU's packed halves apart."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if any(re.search(pattern, name) for pattern in IGNORED):
            continue
        for old, new in RENAMES:
            name = re.sub(old, new, name)
        renamed[name] = tensor
    tensors: dict[str, Tensor] = {}
    for name, tensor in renamed.items():
        part = re.fullmatch(r"(.*\.attn\.)(\w+)\.(weight|bias)", name)
        packed = re.fullmatch(r"(.*\.mlp)\.weights_in\.(weight|bias)", name)
        if part and part[2] in QKV[0]:
            names = [f"{part[1]}{name}.{part[3]}" for either in QKV for name in either]
            tensors[f"{part[1]}qkv.{part[3]}"] = torch.cat([renamed[n] for n in names if n in renamed])
        elif packed:
            half = len(tensor) // 2
            tensors[f"{packed[1]}.fc1_g.{packed[2]}"] = tensor[:half]
            tensors[f"{packed[1]}.fc1_x.{packed[2]}"] = tensor[half:]
        elif not part or part[2] not in QKV[1] + QKV[2]:
            tensors[name] = tensor
    return tensors


def _shape_prefix(tensors: dict[str, Tensor], told: Kind, width: int) -> None:
    """Class token [1, 1, D] and positions [1, N, D] as timm shapes them; a token that has a head is dist_token."""
    tensors["cls_token"] = tensors["cls_token"].reshape(1, 1, width)
    tensors["pos_embed"] = tensors["pos_embed"].reshape(1, -1, width)
    if told.reads == "two" and "reg_token" in tensors:
        tensors["dist_token"] = tensors.pop("reg_token")


def _rows(tensors: Mapping[str, Tensor], name: str, kind: str) -> int:
    if name not in tensors:
        raise UnsupportedModel(f"{kind} is not as its library makes it: it lacks {name} (in timm's names)")
    return len(tensors[name])


def _pair(value: Any) -> tuple[int, int]:
    rows, columns = (value, value) if isinstance(value, int) else value
    return int(rows), int(columns)


def _labels(config: Mapping[str, Any]) -> dict[str, Any]:
    """{"labels": names of the classes in order}, none where they are transformers' placeholders."""
    named = config.get("id2label") or {}
    labels = tuple(str(named[key]) for key in sorted(named, key=int))
    return {"labels": () if all(re.fullmatch(r"LABEL_\d+", label) for label in labels) else labels}


def _refusal(kind: str, config: Mapping[str, Any]) -> str:
    reason = REASONS.get(str(config.get("model_type")))
    return f"{kind} of transformers is not handled{f' ({reason})' if reason else ''}; allowed: {', '.join(KINDS)}"

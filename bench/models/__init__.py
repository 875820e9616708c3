"""Models by name, offline first: our own small ViTs of the digits and CIFAR scales, any timm VisionTransformer, or a
folder of transformers' (bench.models.folders).

A model is first described (`describe`: JSON values that go into the settings of its teacher task: architecture,
and where weights come from by content), then made (`create`), and once made kept as an artifact
(`save`, `load`: model.safetensors and model.json). Weights are looked for in the `--checkpoints` folder, then in
timm's cache, then on the hub; nothing is unpickled.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from bench.engine.atomic import sha256_of
from bench.engine.task import Sources
from bench.errors import BenchError, MissingData
from bench.models import cnn, folders, published
from bench.models.cnn import PlainCNN
from bench.models.weights import cached_or_fetched, find_weights, fitting_weights, load_weights, local_weights

DATA_CONFIG = ("input_size", "mean", "std", "interpolation")  # what model.json keeps of timm's data config

_DIGITS_VIT: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 4,
    "in_chans": 1,
    "num_classes": 10,
    "embed_dim": 64,
    "depth": 4,
    "num_heads": 4,
    "mlp_ratio": 4.0,
}
_CIFAR_VIT: dict[str, Any] = {**_DIGITS_VIT, "in_chans": 3, "embed_dim": 192, "depth": 9, "num_heads": 6}
# Our own architectures; anything else is looked up in timm. No weights: a teacher task trains them.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "digits_vit": _DIGITS_VIT,
    "digits_vit_patch8": {**_DIGITS_VIT, "patch_size": 8},
    "cifar_vit": _CIFAR_VIT,
    "cifar_vit_small": {**_CIFAR_VIT, "embed_dim": 96, "depth": 4, "num_heads": 3},
    # As wide and deep as two megabytes of float16 allow, so that its weights can be published with the project.
    "cifar_vit_tutored": {**_CIFAR_VIT, "embed_dim": 128, "depth": 4, "num_heads": 4},
    "cifar_cnn": {"img_size": 32, "in_chans": 3, "num_classes": 10, "widths": [64, 128, 256]},  # its tutor
}
SEED_MARK = "@"  # `cifar_vit_small@1`: that architecture, trained from seed 1


def describe(name: str, sources: Sources, weights: bool = True, classes: int | None = None) -> dict[str, Any]:
    """What identifies a model in a task's settings. Raises BenchError for unknown names and missing weights.

    Own architectures give {"name", "architecture"}, timm models {"name", "weights": {"sha256"}}, folders what
    bench.models.folders.describe says, wherever the file lies; weights=False leaves the weights out (for costs, which
    do not depend on them). classes: of the data set that an own architecture is trained on (None: as it stands in
    ARCHITECTURES).
    """
    if is_own(name):
        own, _ = split_seed(name)
        heads = {} if classes is None else {"num_classes": classes}
        return {"name": own, "architecture": {**ARCHITECTURES[own], **heads}}
    if (folder := folders.find(name, sources)) is not None:
        if (file := local_weights(name, sources)) is not None:
            raise BenchError(f"model {name}: {folder} and {file} are both there; keep one")
        return folders.describe(name, folder, weights)
    if not is_named(name):
        hint = f"; near it: {', '.join(near)}" if (near := _near(name)) else ""
        raise BenchError(
            f"unknown model {name!r}; known: {', '.join(ARCHITECTURES)}, timm's models, and folders that "
            f"save_pretrained wrote, DIR/{name}/ of --checkpoints DIR{hint}"
        )
    _check_tag(name)
    described = {"name": name}
    if weights:
        try:
            kind, where = find_weights(name, sources, local_only=sources.placeholders is not None)
        except MissingData as error:
            if sources.placeholders is None:
                raise
            sources.placeholders[f"weights {name}"] = str(error)
            return described | {"weights": {"sha256": "not here"}}
        path = cached_or_fetched(where) if kind == "hub" else where
        fitting_weights(_outline(described), path)  # a damaged file is refused before any work depends on it
        described["weights"] = {"sha256": sha256_of(path)}
    return described


def _check_tag(name: str) -> None:
    """Refuse a tag of pretrained weights (after the dot) that timm does not know: it would fail in every task."""
    architecture, dot, tag = name.partition(".")
    known = sorted(
        {found.partition(".")[2] for found in timm.list_pretrained(f"{architecture}.*") if "." in found}
    )
    if dot and tag not in known:
        raise BenchError(
            f"model {name!r}: timm has no weights {tag!r} of {architecture}; allowed: {', '.join(known) or 'none'}"
        )


def _near(name: str) -> list[str]:
    """Up to three models whose names go on from this one, or else resemble it."""
    known, plain = [*ARCHITECTURES, *timm.list_models()], name.lower().replace("-", "_")
    longer = sorted((other for other in known if other.startswith(plain)), key=len)
    return longer[:3] or difflib.get_close_matches(plain, known, n=3)


def split_seed(name: str) -> tuple[str, int | None]:
    """`cifar_vit_small@1` -> (architecture, seed of its training); None where none is named."""
    own, mark, seed = name.partition(SEED_MARK)
    if not mark:
        return own, None
    if own not in ARCHITECTURES or not seed.isdecimal() or len(seed) > 9:
        raise BenchError(
            f"model {name!r}: {SEED_MARK} names the seed that one of our own models is trained from; allowed: "
            f"a whole number of up to 9 digits after {', '.join(ARCHITECTURES)}"
        )
    return own, int(seed)


def is_own(name: str) -> bool:
    """Whether it is one of ARCHITECTURES, which are trained here."""
    return split_seed(name)[0] in ARCHITECTURES


def is_named(name: str) -> bool:
    """Whether the name alone tells the shape: one of ARCHITECTURES, or timm's."""
    return is_own(name) or timm.is_model(name.split(".")[0])


def create(described: Mapping[str, Any], sources: Sources | None = None) -> nn.Module:
    """The described model in eval mode; with its weights if `sources` is given and it has any (else random)."""
    if "architecture" in described:
        made = PlainCNN if "widths" in described["architecture"] else VisionTransformer
        model = made(**described["architecture"])
    elif "blueprint" in described:
        model = folders.build(described)
    else:
        heads = {"num_classes": described["classes"]} if "classes" in described else {}
        model = timm.create_model(described["name"], **heads)
    if sources is not None and "published" in described.get("weights", {}):
        state, mean, std = published.read(described["weights"])
        model.load_state_dict(state)
        set_data_config(model, mean, std)
    elif sources is not None and "folder" in described.get("weights", {}):
        folders.load(model, described["weights"], sources, new_head="classes" in described)
    elif sources is not None and "weights" in described:
        kind, where = find_weights(described["weights"].get("file", described["name"]), sources)
        path = cached_or_fetched(where) if kind == "hub" else where
        if sha256_of(path) != described["weights"].get("sha256"):
            raise BenchError(f"{path} holds other weights than those planned with")
        load_weights(model, path, new_head="classes" in described and "file" not in described["weights"])
    return model.eval()


def outline(model: str | Mapping[str, Any]) -> VisionTransformer:
    """The model without values (on the meta device): to ask for its patch grid, or whether it is handled.

    model: as `describe` describes it; or a name, unless it is a folder's."""
    return _outline(describe(model, Sources(), weights=False) if isinstance(model, str) else model)


def _outline(described: Mapping[str, Any]) -> VisionTransformer:
    try:
        with torch.device("meta"):
            return create(described)
    except (NotImplementedError, RuntimeError):  # a constructor that computes with values
        return create(described)


def describe_own(name: str, dataset: str, classes: int, sources: Sources) -> dict[str, Any] | None:
    """A model of one's own for a data set, `<name>.<dataset>.safetensors` or .pth among the checkpoints."""
    path = local_weights(f"{name}.{dataset}", sources)
    if path is None:
        return None
    shape = {**describe(name, sources, weights=False), "classes": classes}
    fitting_weights(_outline(shape), path)
    return {**shape, "weights": {"file": f"{name}.{dataset}", "sha256": sha256_of(path)}}


def data_config(model: nn.Module) -> dict[str, Any]:
    """{"input_size": [C, H, W], "mean": [...], "std": [...], "interpolation"} from timm's data config of the model."""
    config = timm.data.resolve_model_data_config(model)
    return {key: list(value) if isinstance(value := config[key], tuple) else value for key in DATA_CONFIG}


def input_size(model: nn.Module) -> tuple[int, int, int]:
    """(channels, rows, columns) of the pictures that an own architecture takes."""
    if isinstance(model, PlainCNN):
        return model.in_chans, model.img_size, model.img_size
    embed = model.patch_embed
    return embed.proj.in_channels, *embed.img_size


def set_data_config(model: nn.Module, mean: list[float], std: list[float]) -> None:
    """Give an own architecture the data config that timm's models carry, so that smi normalises by it."""
    model.pretrained_cfg = {
        "input_size": input_size(model),
        "mean": tuple(mean),
        "std": tuple(std),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "num_classes": model.num_classes,
    }


def save(model: nn.Module, described: Mapping[str, Any], folder: Path) -> None:
    """Write model.safetensors and model.json (description and data config) into the folder."""
    save_file(
        {name: value.contiguous().cpu() for name, value in model.state_dict().items()},
        folder / "model.safetensors",
    )
    kept = {
        "model": {key: described[key] for key in described if key != "weights"},
        "data": data_config(model),
    }
    (folder / "model.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def load(folder: Path, device: str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """(model in eval mode on the device, its data config) from the artifacts of a teacher task."""
    kept = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    model = create(kept["model"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    if "architecture" in kept["model"]:
        set_data_config(model, kept["data"]["mean"], kept["data"]["std"])
    return model.to(device), kept["data"]


@torch.no_grad()
def initialise_head(model: nn.Module, seed: int) -> None:
    """A fresh classifier: weights from a normal distribution of deviation 0.02 (as timm's), no bias."""
    generator = torch.Generator().manual_seed(seed)
    for head in (model.head, getattr(model, "head_dist", None)):
        if isinstance(head, nn.Linear):
            nn.init.normal_(head.weight, std=0.02, generator=generator)
            if head.bias is not None:
                nn.init.zeros_(head.bias)


def initialise(model: nn.Module, seed: int) -> None:
    """The weights that the training of an own architecture begins with."""
    if isinstance(model, PlainCNN):
        cnn.initialise(model, seed)
    else:
        initialise_micro_vit(model, seed)


@torch.no_grad()
def initialise_micro_vit(model: VisionTransformer, seed: int) -> None:
    """Weights that a micro ViT trains well from, where timm's own initialisation, made for large models, does not:
    xavier linear layers, positions from 0.5 x sin-cos, a faint patch embedding."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            nn.init.zeros_(module.bias)
    nn.init.normal_(model.patch_embed.proj.weight, std=1e-3, generator=generator)
    nn.init.zeros_(model.patch_embed.proj.bias)
    nn.init.normal_(model.cls_token, std=0.02, generator=generator)
    model.pos_embed.zero_()
    rows, columns = model.patch_embed.grid_size
    model.pos_embed[0, model.num_prefix_tokens :] = 0.5 * _sin_cos(rows, columns, model.embed_dim)


def _sin_cos(rows: int, columns: int, width: int) -> Tensor:
    """Sin-cos position embeddings of a patch grid, [rows * columns, width]: half for the row, half for the column."""
    frequencies = torch.exp(-math.log(10000) * torch.arange(width // 4) / (width // 4))

    def along(positions: Tensor) -> Tensor:
        angles = positions[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    row = torch.arange(rows).repeat_interleave(columns).float()
    column = torch.arange(columns).repeat(rows).float()
    return torch.cat([along(row), along(column)], dim=1)

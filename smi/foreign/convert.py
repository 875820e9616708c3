"""`to_timm`: other libraries' Vision Transformers as timm models that answer alike.

Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smi.errors import UnsupportedModel
from smi.foreign import folder, torchvision, transformers
from smi.foreign import processor as processors
from smi.foreign.blueprint import Blueprint
from smi.foreign.wrappers import unwrapped
from smi.vit import frozen

AGREE = 1e-4  # of logits in float32, absolute and relative; rounding grows with depth


def to_timm(
    model: nn.Module | str | Path, processor: Any = None, image_size: int | tuple[int, int] | None = None
) -> nn.Module:
    """A Vision Transformer of torchvision or transformers as a timm model with the same logits.

    model: a model in memory, which is never changed; or a folder that transformers' `save_pretrained` wrote (nothing
        but JSON and safetensors is read, and transformers need not be installed). What is handled: torchvision's
        VisionTransformer; transformers' ViT, DeiT (with and without teacher), DINOv2 (with and without registers) and
        CLIP's vision tower. A timm model comes back as it is. Wrappers are taken off: torch.compile's, DataParallel's,
        DistributedDataParallel's.
    processor: the image processor of a transformers model, its settings, or the folder with its
        preprocessor_config.json: normalisation, interpolation and crop go into `pretrained_cfg`, where timm looks for
        them. By default that file is looked for in the folder which the model came from.
    image_size: pixels, one number or (rows, columns); for DINOv2 alone, which resamples its positions.

    Returns a model of its own weights in the mode of the original, whose classes' names, if known, are
    `pretrained_cfg["label_names"]`. A converted model in memory is held to the original on one random image.
    Warns where the normalisation is not known. Raises UnsupportedModel that names what is not handled.
    """
    size = _size(image_size)
    if isinstance(model, (str, Path)):
        blueprint, tensors, kind, known = folder.read(model, processor, size)
        _warn_unless(known, kind, blueprint)
        with folder.fitting_values(model):
            return blueprint.load(tensors, kind)
    if not isinstance(model, nn.Module):
        raise UnsupportedModel(
            f"the model is a {type(model).__name__}; allowed: a torch.nn.Module, or a folder that save_pretrained wrote"
        )
    model = unwrapped(model)
    if torchvision.handles(model):
        kind = "VisionTransformer of torchvision"
        blueprint, weights = torchvision.converted(model)
        if size not in (None, blueprint.image_size):
            raise UnsupportedModel(
                f"{kind} takes images of {blueprint.image_size[0]} pixels alone, not {size}"
            )
        known = True
    elif _of_transformers(model):
        kind = type(model).__name__
        blueprint, weights = transformers.converted(kind, model.config.to_dict(), model.state_dict(), size)  # type: ignore
        settings = _settings(model, processor)
        blueprint = replace(blueprint, **settings)
        known = "mean" in settings
    else:
        return model
    _warn_unless(known, kind, blueprint)
    made = blueprint.load(weights, kind)
    _hold_to(model, made, kind)
    return made.train(model.training)


def model_given(model: Any) -> Any:
    """A model as somebody gave it, unwrapped and converted; what is no model is left for the adapter to refuse."""
    return to_timm(model) if isinstance(model, nn.Module) else model


def _of_transformers(model: nn.Module) -> bool:
    """Whether it is a class of transformers; UnsupportedModel for one that somebody has derived from theirs."""
    kind = type(model)
    theirs = [
        k for k in kind.__mro__ if k.__module__.startswith(("transformers.models.", "torchvision.models."))
    ]
    if not theirs:
        return False
    if theirs[0] is not kind and (
        theirs[0].__name__ in transformers.KINDS
        or theirs[0].__module__ == "torchvision.models.vision_transformer"
    ):
        raise UnsupportedModel(
            f"{kind.__name__} is derived from {theirs[0].__name__}, and what it does otherwise is not known; allowed: "
            f"{theirs[0].__name__} itself"
        )
    return theirs[0].__module__.startswith("transformers.")


def _settings(model: Any, given: Any) -> dict[str, Any]:
    """What the image processor says: the one given, or the file in the folder that the model came from."""
    if given is not None:
        settings = processors.settings_of(given)
        if settings is None:
            raise UnsupportedModel(f"processor: there is no {processors.FILE} in {given}")
        return processors.data_config(settings)
    came_from = getattr(model, "name_or_path", "") or ""
    settings = processors.settings_of(came_from) if came_from and Path(came_from).is_dir() else None
    return {} if settings is None else processors.data_config(settings)


def _warn_unless(known: bool, kind: str, blueprint: Blueprint) -> None:
    if not known:
        mean, std = list(blueprint.mean), list(blueprint.std)
        warnings.warn(
            f"{kind}: no image processor says how pictures are normalised, so ImageNet's mean {mean} and std {std} are "
            "taken; smi.to_timm(model, processor=...) says it",
            stacklevel=3,
        )


def _size(given: Any) -> tuple[int, int] | None:
    if given is None:
        return None
    pair = given if isinstance(given, (tuple, list)) else (given, given)
    if len(pair) != 2 or not all(isinstance(v, int) and v >= 1 for v in pair):
        raise UnsupportedModel(
            f"image_size is {given!r}; allowed: whole numbers of pixels, one or (rows, columns)"
        )
    return pair[0], pair[1]


@torch.no_grad()
def _hold_to(original: nn.Module, made: nn.Module, kind: str) -> None:
    """UnsupportedModel unless both answer alike on a random image: what a name does not tell, this does."""
    first = next(made.parameters())
    if first.device.type == "meta" or first.dtype != torch.float32:
        return
    shape = (1, *made.pretrained_cfg["input_size"])  # type: ignore
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(first.device)
    with frozen(original):
        wanted = _answer(original, image)
    answered = made.eval()(image)
    scale = max(1.0, float(wanted.abs().max()))
    if not torch.allclose(answered / scale, wanted / scale, rtol=AGREE, atol=AGREE):
        apart = float((answered - wanted).abs().max())
        raise UnsupportedModel(
            f"{kind}: the converted model answers otherwise than the original (logits up to {apart:.2g} apart), so the "
            "original does something that its weights do not tell"
        )


def _answer(model: nn.Module, image: Tensor) -> Tensor:
    """Logits [B, classes], or what a backbone gives for its class token, [B, D]."""
    out = model(image)
    if isinstance(out, Tensor):
        return out
    for name in ("logits", "image_embeds"):
        if getattr(out, name, None) is not None:
            return getattr(out, name)
    if type(model).__name__.startswith("CLIP"):
        return out.pooler_output
    return out.last_hidden_state[:, 0]

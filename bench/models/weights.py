"""Pretrained weights: found offline first, read without unpickling, held to the model they are for.

Looked for in the `--checkpoints` folder, then in timm's cache, then on the hub.
"""

from __future__ import annotations

import socket
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from timm.models import get_pretrained_cfg
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from bench.engine.task import Sources
from bench.errors import BenchError, MissingData
from bench.models.checkpoints import note, read_weights

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
HUB_SECONDS = 5  # to wait for the hub to answer at all
HEADS = ("head.", "head_dist.")  # a ViT's classifiers


def find_weights(name: str, sources: Sources, local_only: bool = False) -> tuple[str, Any]:
    """("file", path) in the checkpoints folder, or ("hub", timm tag) in timm's cache or on the hub, in that order.

    What is only on the hub is fetched into the cache now, before any work depends on it, unless local_only.
    Raises MissingData that says what to fetch and where to put it.
    """
    folder = sources.checkpoints
    local = local_weights(name, sources)
    if local is not None:
        return "file", local
    tag = getattr(get_pretrained_cfg(name), "hf_hub_id", None)
    if tag and (hub_file(tag, local_only=True) or (not local_only and hub_file(tag, local_only=False))):
        return "hub", tag
    looked = f"{folder}/{name}.safetensors (or .pth), " if folder is not None else ""
    places = f"{looked}timm's cache" + ("" if local_only else " and the hub")
    fetch = f"fetch model.safetensors of {tag} from the Hugging Face hub" if tag else "get a checkpoint"
    raise MissingData(
        f"no weights for {name} in {places}; {fetch}, save it as DIR/{name}.safetensors and pass --checkpoints DIR"
    )


def local_weights(name: str, sources: Sources) -> Path | None:
    """The file of that name in the checkpoints folder, if there is one."""
    folder = sources.checkpoints
    if folder is None:
        return None
    if not Path(folder).is_dir():
        raise BenchError(f"--checkpoints {folder} is not a folder")
    paths = [Path(folder) / f"{name}{suffix}" for suffix in SUFFIXES]
    return next((path for path in paths if path.is_file()), None)


def hub_file(tag: str, local_only: bool) -> Path | None:
    """Path of the hub's model.safetensors in the cache, fetched if allowed; None if it cannot be had."""
    from huggingface_hub import hf_hub_download

    if not local_only and not _hub_answers():
        return None
    try:
        return Path(hf_hub_download(tag, "model.safetensors", local_files_only=local_only, etag_timeout=10))
    except Exception:  # offline, refused, unknown there: the caller says in one line what can be done
        return None


def cached_or_fetched(tag: str) -> Path:
    """Path of the hub's model.safetensors, from the cache if it is there: compute nodes often have no network.
    Raises MissingData if it cannot be had."""
    path = hub_file(tag, local_only=True) or hub_file(tag, local_only=False)
    if path is None:
        raise MissingData(f"the weights {tag} are no longer in timm's cache, and the hub does not answer")
    return path


@cache
def _hub_answers() -> bool:
    """Whether the hub can be reached at all; asked first, as its client retries for a minute, a line each time."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if getproxies():  # the proxy knows, a socket of ours does not
        return True
    address = urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((address.hostname, address.port or 443), timeout=HUB_SECONDS):
            return True
    except OSError:
        return False


def load_weights(model: nn.Module, path: Path, new_head: bool = False) -> None:
    """Load a checkpoint strictly (.safetensors, or what `torch.load(weights_only=True)` reads). BenchError if not.

    new_head: leave the model's classifier as it is, for a data set of other classes than the checkpoint's."""
    model.load_state_dict(fitting_weights(model, path, new_head))


def fitting_weights(model: nn.Module, path: Path, new_head: bool = False) -> dict[str, Tensor]:
    """The state dict in a file, made sure to be the model's own, name by name; see `load_weights`."""
    state = read_weights(path)
    if isinstance(model, VisionTransformer):
        state = _as_timm_names_them(model, path, state)
    return held_to(model, state, path, new_head)


def held_to(
    model: nn.Module, state: dict[str, Tensor], path: Path, new_head: bool = False
) -> dict[str, Tensor]:
    """A state dict read from `path`, made sure to be the model's own, name by name; new_head as in `load_weights`."""
    expected = model.state_dict()
    if new_head:
        own = {name: value for name, value in expected.items() if name.startswith(HEADS)}
        state = {name: value for name, value in state.items() if not name.startswith(HEADS)} | own
    for name, value in expected.items():
        if name not in state:
            raise BenchError(f"{path} is no checkpoint of this model: it lacks {name}")
        if state[name].shape != value.shape:
            found, wanted = tuple(state[name].shape), tuple(value.shape)
            raise BenchError(
                f"{path} is no checkpoint of this model: {name} is {found}, the model's {wanted}"
            )
        _check_values(path, name, state[name], value)
    strangers = sorted(set(state) - set(expected))
    if strangers:
        raise BenchError(f"{path} is no checkpoint of this model: it also holds {', '.join(strangers[:3])}")
    return state


def _as_timm_names_them(model: VisionTransformer, path: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under timm's names, its positions resampled to the model's grid where it has another (said)."""
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    try:
        state = checkpoint_filter_fn(dict(state), model)
    except Exception as error:  # made for published files; others can break it anywhere
        raise BenchError(f"{path} is no checkpoint of this model: {type(error).__name__}: {error}") from None
    for name in ("pos_embed", "patch_embed.proj.weight"):
        found, made = shapes.get(name), tuple(state[name].shape) if name in state else None
        if found is not None and made is not None and found != made:
            note(f"{path}: {name} is {found}; it is resampled to the model's {made}")
    return state


def _check_values(path: Path, name: str, found: Tensor, wanted: Tensor) -> None:
    """Half, bfloat16 and double weights become the model's; what is no such number, or no finite one, is refused."""
    if wanted.is_floating_point() != found.is_floating_point() or found.is_complex():
        kinds = f"{name} is {found.dtype}, the model's {wanted.dtype}".replace("torch.", "")
        raise BenchError(f"{path} is no checkpoint of this model: {kinds}")
    if found.is_floating_point() and not found.is_meta and not torch.isfinite(found.float()).all():
        raise BenchError(f"{path}: {name} holds NaN or infinite values; such a model answers nothing")

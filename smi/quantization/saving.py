"""A quantized model as one safetensors file: what it holds, how it is written, and how it is read and checked.

The description (JSON) holds: format, version, architecture, bits, quantizer, normalisation, data (timm's data config,
class names), calibration, smi's and torch's versions, packed (shapes of the weights in half bytes) and a checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smi.errors import InvalidFile
from smi.files import load_tensors, save_tensors
from smi.quantization import architecture
from smi.vit import normalisation

if TYPE_CHECKING:
    from smi.quantization.model import QuantizedViT

FORMAT, VERSION = "smi.quantized", 1
_ALWAYS_ZERO = ("zero", "offset")  # of symmetric weights: left out of the file


def save(model: QuantizedViT, path: str | Path, overwrite: bool) -> None:
    """Write `model` to `path`; see QuantizedViT.save."""
    model.need_calibration()
    need_free(path, overwrite)
    state, tensors, packed = model.state_dict(), {}, {}
    for name, tensor in state.items():
        layer, _, last = name.rpartition(".")
        if last in _ALWAYS_ZERO and f"{layer}.codes" in state and not tensor.any():
            continue
        if name.endswith(".codes") and model.weight_bits <= 4:
            tensors[name], packed[name] = pack(tensor), list(tensor.shape)
        else:
            tensors[name] = tensor.contiguous()
    description = {**describe(model), "packed": packed}
    description["checksum"] = checksum(tensors, description)
    with writing(path):
        save_tensors(path, tensors, description)


def describe(model: QuantizedViT) -> dict[str, Any]:
    """What a file says of a quantized model, in JSON values."""
    mean, std = normalisation(model)
    return {
        "format": FORMAT,
        "version": VERSION,
        "architecture": architecture.describe(model.model),
        "weight_bits": model.weight_bits,
        "activation_bits": model.activation_bits,
        "quantizer": model.recipe.to_json(),
        "whole_stem": model.whole_stem,
        "normalisation": {"mean": mean.flatten().tolist(), "std": std.flatten().tolist()},
        "data": {name: value for name, value in model.pretrained_cfg.items() if _is_json(value)},
        "calibration": model.calibrated_on,
        "versions": {name: _version(name) for name in ("sparse-model-inversion", "torch", "timm")},
    }


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state_dict of a QuantizedViT, and the description; InvalidFile for any file that `save` did not write so."""
    tensors, description = load_tensors(path, InvalidFile)
    if description.get("format") != FORMAT:
        raise InvalidFile(f"{path}: holds no quantized model (smi.SyntheticImages.load reads images)")
    if description.get("version") != VERSION:
        raise InvalidFile(
            f"{path}: is of version {description.get('version')!r} of the format, this smi reads version {VERSION}"
        )
    if description.get("checksum") != checksum(tensors, description):
        raise InvalidFile(f"{path}: was changed after it was written (its checksum is another)")
    for name, shape in description["packed"].items():
        tensors[name] = unpack(tensors[name], shape)
    for layer in [name.removesuffix(".codes") for name in tensors if name.endswith(".codes")]:
        for last in _ALWAYS_ZERO:
            tensors.setdefault(f"{layer}.{last}", torch.zeros_like(tensors[f"{layer}.scale"]))
    return tensors, description


def checksum(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> str:
    """sha256 over all tensors, by name, and the description without its own checksum."""
    digest = hashlib.sha256()
    text = {name: value for name, value in description.items() if name != "checksum"}
    digest.update(json.dumps(text, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def pack(codes: Tensor) -> Tensor:
    """int8 codes from -8 to 7 -> uint8, two of them a byte, the first in the low half, as ONNX packs int4."""
    flat = codes.flatten().view(torch.uint8) & 15
    flat = torch.cat([flat, flat.new_zeros(len(flat) % 2)])
    return flat[::2] | (flat[1::2] << 4)


def unpack(halves: Tensor, shape: list[int]) -> Tensor:
    """What `pack` packed, int8 of that shape."""
    flat = torch.stack([halves & 15, halves >> 4], dim=1).flatten().to(torch.int8)
    flat = torch.where(flat > 7, flat - 16, flat)
    return flat[: torch.Size(shape).numel()].reshape(shape)


def need_free(path: str | Path, overwrite: bool) -> None:
    """InvalidFile where something is at `path` already, unless it may be overwritten, or its folder is missing."""
    path = Path(path)
    if path.is_dir():
        raise InvalidFile(f"{path}: is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise InvalidFile(f"{path}: is there already; give another name, or overwrite=True (--force)")
    if not path.parent.is_dir():
        raise InvalidFile(f"{path}: there is no folder {path.parent}")


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """While open, an OSError becomes an InvalidFile that says why `path` could not be written."""
    try:
        yield
    except OSError as cause:
        raise InvalidFile(f"{path}: could not be written ({cause.strerror or cause})") from cause


def _is_json(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"

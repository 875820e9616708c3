"""QuantizedViT.export: an ONNX file that runs on integer kernels, checked before anything is written.

What a file computes is what `QuantizedViT.deployed` computes: quantizers are dropped there, never in the graph alone.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smi.errors import InvalidSetting, MissingExtra
from smi.quantization import saving
from smi.quantization.deployment.processor import saturates

if TYPE_CHECKING:
    from smi.quantization.model import QuantizedViT

PACKINGS: Mapping[str, str] = {
    "int8": "one byte a weight; integer kernels",
    "int4": "weights of up to 4 bits, two a byte: half the file, but runtimes multiply in float",
}
OPSET, IR_VERSION = 21, 10
_LARGEST = 2**31 - 2**20  # bytes of a protobuf, less room for what is not weights


@dataclass(frozen=True)
class Exported:
    """What was written.

    path: the file; data: weights beside it where it would pass 2 GB, else None. bytes: of both.
    integer: names of the matrix products that stand as integer kernels need them; in_float: name -> why, of those that
    are quantized and yet run in float.
    """

    path: Path
    data: Path | None
    bytes: int
    integer: tuple[str, ...]
    in_float: Mapping[str, str]


def export(
    small: QuantizedViT,
    path: str | Path,
    profile: str,
    packing: str,
    preprocess: bool,
    reduce_range: bool,
    overwrite: bool,
) -> Exported:
    """Write `small` to `path`; see QuantizedViT.export."""
    need_onnx()
    small.need_calibration()
    _check(small, packing)
    saving.need_free(path, overwrite)
    deployed = small.deployed(profile, reduce_range=reduce_range)
    from smi.quantization.deployment.vit_graph import VitGraph  # needs onnx

    name = "pixels" if preprocess else "image"
    written = VitGraph(deployed, name, preprocess, packing)
    products = written.graph.products
    in_float = {one.name: one.float_because for one in products if one.float_because}
    about = {
        **saving.describe(deployed),
        "profile": profile,
        "pack": packing,
        "preprocess": preprocess,
        "products": len(products),
        "products_in_float": in_float,
        "original_bits": [small.weight_bits, small.activation_bits],
    }
    size, data = _write(written, name, Path(path), about)
    _say(deployed, in_float, len(products), packing)
    return Exported(
        Path(path), data, size, tuple(one.name for one in products if not one.float_because), in_float
    )


def write_float(plain: QuantizedViT, path: str | Path, overwrite: bool) -> Exported:
    """A model without any quantizer, in float32 by the same operators."""
    need_onnx()
    saving.need_free(path, overwrite)
    from smi.quantization.deployment.vit_graph import VitGraph

    size, data = _write(VitGraph(plain, "image", False, "int8"), "image", Path(path), {"format": "smi.float"})
    return Exported(Path(path), data, size, (), {})


def need_onnx() -> None:
    """MissingExtra, in one line, where the packages that write and check ONNX files are not there."""
    try:
        import onnx  # noqa: F401
    except ImportError as cause:
        raise MissingExtra(f"ONNX files need more packages: pip install '.[onnx]' ({cause})") from cause


def _check(small: QuantizedViT, packing: str) -> None:
    if packing not in PACKINGS:
        raise InvalidSetting(f"unknown packing {packing!r}; allowed: {', '.join(PACKINGS)}")
    if packing == "int4" and small.weight_bits > 4:
        raise InvalidSetting(
            f"pack='int4' holds weights of up to 4 bits, these have {small.weight_bits}; allowed: pack='int8'"
        )


def _write(written: Any, image: str, path: Path, about: Mapping[str, Any]) -> tuple[int, Path | None]:
    """Check and write the model; (bytes, the file of external data, if there is one)."""
    import onnx
    from onnx import TensorProto, helper

    small, graph = written.small, written.graph
    grid = small.tokens.grid
    logits = graph.op("Identity", [written.result], "logits")
    sizes = ["batch", small.tokens.channels, grid.height, grid.width]
    proto = helper.make_graph(
        graph.nodes,
        "vit",
        [helper.make_tensor_value_info(image, TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info(logits, TensorProto.FLOAT, ["batch", *written.logit_shape])],
        list(graph.constants.values()),
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="smi")
    model.ir_version = IR_VERSION
    description = {**about, "checksum": checksum(model)}
    helper.set_model_props(model, {"smi": json.dumps(description, sort_keys=True), **_plain(description)})
    large = sum(len(one.raw_data) for one in graph.constants.values()) > _LARGEST
    with (
        saving.writing(path),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder,
    ):
        whole = Path(folder) / path.name
        beside = f"{path.name}.data" if large else None
        onnx.save_model(model, whole, save_as_external_data=large, location=beside, size_threshold=1024)
        onnx.checker.check_model(str(whole), full_check=True)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        for file in sorted(Path(folder).iterdir(), key=lambda one: one.name == path.name):
            file.replace(
                path.parent / file.name
            )  # the weights first, so that the model is never without them
    return size, path.parent / beside if beside else None


def checksum(model: Any) -> str:
    """sha256 over every node and every constant of an ONNX model, whatever its metadata say."""
    import hashlib

    from onnx import numpy_helper

    digest = hashlib.sha256()
    for node in model.graph.node:
        attributes = sorted((one.name, one.i, one.f, one.s, tuple(one.ints)) for one in node.attribute)
        digest.update(repr((node.op_type, list(node.input), list(node.output), attributes)).encode())
    for one in model.graph.initializer:
        raw = one.raw_data or numpy_helper.to_array(one).tobytes()
        digest.update(repr((one.name, one.data_type, list(one.dims))).encode())
        digest.update(raw)
    return digest.hexdigest()


def _plain(about: Mapping[str, Any]) -> dict[str, str]:
    """What a person looks for first in a model's properties, as text of its own."""
    if "weight_bits" not in about:
        return {}
    names = about["data"].get("label_names")
    plain = {
        "bits": f"W{about['weight_bits']}/A{about['activation_bits']}",
        "profile": about["profile"],
        "mean": json.dumps(about["normalisation"]["mean"]),
        "std": json.dumps(about["normalisation"]["std"]),
        "classes": str(about["architecture"]["classes"]),
    }
    return plain | ({"class_names": json.dumps(names)} if names else {})


def _say(deployed: QuantizedViT, in_float: Mapping[str, str], products: int, packing: str) -> None:
    reasons = sorted(set(in_float.values()))
    if in_float and packing != "int4":
        _warn(f"{len(in_float)} of {products} quantized matrix products run in float: {'; '.join(reasons)}")
    if packing == "int8" and saturates(deployed.weight_bits):
        _warn(
            "this CPU has no VNNI: there 8-bit weights saturate in onnxruntime's integer kernels; export with "
            "reduce_range=True, or run the session with session.x64quantprecision=1 (smi does, on such a CPU)"
        )


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=5)

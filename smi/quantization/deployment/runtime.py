"""Running an exported file in onnxruntime, and reading what it says of itself.

Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smi.errors import InvalidFile, InvalidImages, MissingExtra
from smi.quantization.deployment.export import checksum, need_onnx
from smi.quantization.deployment.processor import saturates

WARM_UP = 2  # turns that do not count


class OnnxViT:
    """An exported file, ready to run on the CPU: forward(image) -> logits, as the model that it was made of.

    threads: of onnxruntime (its own choice by default). about: what the file says of itself.
    precise: sums that do not saturate on x86 without VNNI (session.x64quantprecision), by slower kernels; by default
    where the processor lacks VNNI, and only there: with it sums are exact, and kernels twice as fast without.
    Raises InvalidFile for a file that is missing, damaged, changed, or that this onnxruntime cannot run.
    """

    def __init__(self, path: str | Path, threads: int = 0, precise: bool | None = None) -> None:
        self.about = describe(path)
        self.path, self.session = Path(path), session(path, threads, precise)
        self.input = self.session.get_inputs()[0]

    def __call__(self, image: Tensor) -> Tensor:
        """image float32 [B, C, H, W], normalised, or pixels in [0, 1] where the file normalises them itself."""
        expected = self.input.shape[1:]
        if image.ndim != 4 or list(image.shape[1:]) != expected:
            raise InvalidImages(
                f"images are {list(image.shape)}, {self.path} takes [B, {', '.join(map(str, expected))}]"
            )
        (logits,) = self.session.run(
            None, {self.input.name: image.detach().float().cpu().contiguous().numpy()}
        )
        return torch.from_numpy(logits)


def session(
    path: str | Path, threads: int = 0, precise: bool | None = None, optimised: Path | None = None
) -> Any:
    """An onnxruntime session of the file on the CPU; optimised: where to write the graph as it is run."""
    try:
        import onnxruntime
    except ImportError as cause:
        raise MissingExtra(
            f"running ONNX files needs more packages: pip install '.[onnx]' ({cause})"
        ) from cause
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    if saturates() if precise is None else precise:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if precise is not False:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as cause:  # onnxruntime's errors have no common class
        words = " ".join(str(cause).split())[:300]
        raise InvalidFile(f"{path}: onnxruntime {onnxruntime.__version__} cannot run it ({words})") from cause


def take_turns(
    runs: Mapping[str, Callable[[], object]], turns: int, told: Callable[[int], object] = lambda _: None
) -> dict[str, list[float]]:
    """Milliseconds of each run in `turns` turns, in which all runs come one after the other; WARM_UP turns before them
    do not count. told: is called with the number of turns that are over.

    In its turn a run is called twice and the second call timed: what that meets are its own threads and caches, not
    those of the run before.
    """
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(WARM_UP + turns):
        told(turn)
        for name, run in runs.items():
            run()
            began = time.perf_counter()
            run()
            if turn >= WARM_UP:
                spent[name].append(1000 * (time.perf_counter() - began))
    return spent


def describe(path: str | Path) -> dict[str, Any]:
    """What an exported file says of itself; InvalidFile where it is damaged, changed, or not smi's."""
    need_onnx()
    import onnx

    try:
        model = onnx.load(str(path))
        about = json.loads(next(one.value for one in model.metadata_props if one.key == "smi"))
        same = about["checksum"] == checksum(model)
    except FileNotFoundError as cause:
        raise InvalidFile(f"{path}: no such file ({cause.filename or cause})") from None
    except StopIteration:
        raise InvalidFile(f"{path}: is an ONNX file, but not one that smi wrote") from None
    except Exception as cause:  # protobuf's errors differ from version to version
        words = f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
        raise InvalidFile(f"{path}: no ONNX file, or damaged ({words})") from cause
    if not same:
        raise InvalidFile(f"{path}: was changed after it was written (its checksum is another)")
    return about

"""Kind "deploy": a quantized model as an ONNX file, held to its simulation, or timed beside full precision.

settings: weight_bits, activation_bits, quantizer, profile. With inputs (teacher, images) and test
(bench.datasets.fingerprint): what the file answers. Without: model (bench.models.describe; random weights cost the
same), batches, repetitions: how large and how fast the file is.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import smi
from bench import models
from bench.datasets import batches
from bench.engine.task import Job
from bench.tasks.cost import alone
from bench.tasks.images import FILE
from bench.tasks.splits import split_of
from smi.quantization import export_float
from smi.quantization.deployment.processor import instructions, saturates
from smi.quantization.deployment.runtime import WARM_UP, OnnxViT, take_turns
from smi.vit import normalisation

BATCH = 64
SETS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")  # that integer kernels choose by
Answers = Callable[[Tensor], Tensor]


def run(job: Job) -> dict[str, Any]:
    """Metrics: see `_answers` and `_speed`."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        return _answers(job, Path(folder)) if job.inputs else _speed(job, Path(folder))


def _answers(job: Job, folder: Path) -> dict[str, Any]:
    """top1 (%) of full_precision, simulated and deployed; agreement (%) of the file with its simulation;
    logit_difference between these; logit_error of the file, and of the whole simulation (every quantizer), to full
    precision: norms of differences over norms; bytes of the file; products, and how many of them run in float."""
    settings = job.task.settings
    model, data = models.load(job.inputs["teacher"], "cpu")
    images = smi.SyntheticImages.load(job.inputs["images"] / FILE)
    small = _quantized(model, images, settings)
    written = small.export(folder / "vit.onnx", settings["profile"])
    engines: dict[str, Answers] = {
        "full_precision": model,
        "simulated": small.deployed(settings["profile"]),
        "deployed": OnnxViT(written.path, torch.get_num_threads()),
        "whole": small,
    }
    test = split_of(job, "test", data)
    mean, std = normalisation(model)
    logits: dict[str, list[Tensor]] = {name: [] for name in engines}
    labels = []
    for index, (pixels, of_pixels) in enumerate(batches(test, BATCH)):
        job.progress(index * BATCH, len(test), {})
        image = (pixels - mean) / std
        labels.append(of_pixels)
        for name, engine in engines.items():
            logits[name].append(engine(image))
    found, label = {name: torch.cat(parts) for name, parts in logits.items()}, torch.cat(labels)
    best = {name: values.argmax(1) for name, values in found.items()}
    return {
        "top1": {name: _percent(best[name] == label) for name in ("full_precision", "simulated", "deployed")},
        "agreement": _percent(best["deployed"] == best["simulated"]),
        "logit_difference": _apart(found["deployed"], found["simulated"]),
        "logit_error": _apart(found["deployed"], found["full_precision"]),
        "logit_error_of_whole": _apart(found["whole"], found["full_precision"]),
        "pictures": len(label),
        "bytes": written.bytes,
        "products": len(written.integer) + len(written.in_float),
        "products_in_float": len(written.in_float),
    }


def _speed(job: Job, folder: Path) -> dict[str, Any]:
    """bytes of the files (int8; int4, where weights fit; fp32); milliseconds {batch: {engine: {median, least, most}}}
    of a batch, engines taking turns in this process: deployed, runtime_fp32, torch_fp32, simulated; threads;
    instructions (of SETS, as Linux names them); precise: onnxruntime kept from saturating, as it must be without
    VNNI."""
    settings = job.task.settings
    model = models.create(settings["model"])
    embed = model.patch_embed
    pixels = torch.rand(
        2, embed.proj.in_channels, *embed.img_size, generator=torch.Generator().manual_seed(0)
    )
    images = smi.SyntheticImages(pixels, torch.zeros(2, dtype=torch.int64), None, tuple(embed.patch_size))
    small = _quantized(model, images, settings)
    written = small.export(folder / "int8.onnx", settings["profile"])
    plain = export_float(model, folder / "fp32.onnx")
    sizes = {"int8": written.bytes, "fp32": plain.bytes}
    if settings["weight_bits"] <= 4:
        sizes["int4"] = small.export(folder / "int4.onnx", settings["profile"], pack="int4").bytes
    threads = torch.get_num_threads()
    engines: dict[str, Answers] = {
        "deployed": OnnxViT(written.path, threads),
        "runtime_fp32": OnnxViT(plain.path, threads),
        "torch_fp32": model,
        "simulated": small,
    }
    with alone(job):
        milliseconds = {
            str(batch): _turns(engines, pixels[:1].repeat(batch, 1, 1, 1), settings["repetitions"], job)
            for batch in settings["batches"]
        }
    flags = instructions()
    return {
        "bytes": sizes,
        "milliseconds": milliseconds,
        "threads": threads,
        "instructions": [name for name in SETS if name in flags],
        "precise": saturates(),
    }


def _turns(engines: dict[str, Answers], image: Tensor, repetitions: int, job: Job) -> dict[str, Any]:
    runs = {name: partial(engine, image) for name, engine in engines.items()}
    spent = take_turns(runs, repetitions, lambda turn: job.progress(turn, WARM_UP + repetitions, {}))
    return {
        name: {"median": statistics.median(times), "least": min(times), "most": max(times)}
        for name, times in spent.items()
    }


def _quantized(model: nn.Module, images: smi.SyntheticImages, settings: Any) -> smi.QuantizedViT:
    bits = settings["weight_bits"], settings["activation_bits"]
    return smi.quantize(model, images, *bits, quantizer=settings["quantizer"], progress=False)


def _percent(right: Tensor) -> float:
    return 100 * int(right.sum()) / len(right)


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())

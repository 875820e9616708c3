"""Kind "quantize": calibrate a quantized model on images, and hold it against full precision on the test split.

inputs: teacher, images. settings: weight_bits, activation_bits, test (bench.datasets.fingerprint), and where they
are asked for: deviations, names of smi.published.OF_CALIBRATION, and quantizer, a name of smi.QUANTIZERS; formula is
the name of the same setting in the keys of published records of the slides' quantizer.
"""

from __future__ import annotations

import time
from typing import Any

import torch

import smi
from bench import models
from bench.engine.task import Job, canonical_json
from bench.tasks.images import FILE
from bench.tasks.scoring import compare
from bench.tasks.splits import split_of


def run(job: Job) -> dict[str, Any]:
    """Metrics: see bench.tasks.scoring.compare; and calibration_seconds, of quantizing the model with the images."""
    settings = job.task.settings
    model, data = models.load(job.inputs["teacher"], job.device)
    images = smi.SyntheticImages.load(job.inputs["images"] / FILE)
    deviations = settings.get("deviations", ())
    begin = time.perf_counter()
    quantized = smi.quantize(
        model,
        images,
        settings["weight_bits"],
        settings["activation_bits"],
        device=job.device,
        quantizer=settings.get("quantizer") or settings.get("formula", "psaq"),
        deviations=deviations,
        progress=False,
    )
    if job.device.startswith("cuda"):
        torch.cuda.synchronize(job.device)  # kernels run on after the call
    seconds = time.perf_counter() - begin
    test = split_of(job, "test", data)
    keep_zero = "keep_zero" in deviations  # the published code normalises test pictures so, too
    identity = canonical_json([job.task.inputs["teacher"].key, settings["test"], keep_zero, job.device])
    found = compare(model, quantized, test, job.device, job.progress, job.should_stop, keep_zero, identity)
    return {**found, "calibration_seconds": seconds}

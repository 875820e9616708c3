"""Kind "images": what a model is calibrated or taught with: inverted, real, or noise.

inputs: teacher. settings:
    source: "inversion", "real", "noise", "files" or "module:function"; count; seed.
    inversion: recipe (smi.Recipe as JSON), stopping (smi.Stopping or smi.Rebirth as JSON, or None), score (None when
        dense), precision, batch_size; and where they are asked for: targets, the class of each image, and snapshots,
        the iterations whose pictures are kept beside the images, and deviations, names of smi.published.OF_INVERSION.
    real: data (bench.datasets.fingerprint of the training split).
    files: files, the hash of the pictures (given.fingerprint). module:function: options, further arguments of it.
    code: hashes of the included code that the images depend on, if there is any.
    noise, real: random_patches, how many patches of each picture are fed forward, chosen at random, or None for all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import smi
from bench import models
from bench.engine.task import Job
from bench.errors import BenchError
from bench.tasks import engines, given
from bench.tasks.splits import split_of
from smi.rebirth import schedule_of
from smi.vit import adapt, normalisation

FILE = "images.safetensors"


def run(job: Job) -> dict[str, Any]:
    """Metrics: patches (of a whole picture), kept (per picture, in the end), sparsity; of inversions also seconds
    (optimisation alone), iterations, iterations_per_second (mean over the run), last_stage_iterations_per_second,
    stages, engine (of bench.tasks.engines.MODES), loss and history."""
    settings = job.task.settings
    model, data = models.load(job.inputs["teacher"], job.device)
    patches = adapt(model).num_patches
    if settings["source"] == "inversion":
        images = _invert(model, job)
        metrics = _figures(images)
    elif settings["source"] == "files":
        images, metrics = given.from_files(model, data, job), {}
    elif ":" in settings["source"]:
        images, metrics = given.from_function(model, data, job), {}
    else:
        images = _pictures(model, data, job)
        metrics = {}
    images.save(job.out / FILE)
    kept = patches if images.kept is None else images.kept.shape[1]
    return {"patches": patches, "kept": kept, "sparsity": 1 - kept / patches} | metrics


def _invert(model: nn.Module, job: Job) -> smi.SyntheticImages:
    settings = job.task.settings
    recipe, stops = smi.Recipe.from_json(settings["recipe"]), settings["stopping"]
    if "deviations" in settings:
        recipe = smi.published.recipe(recipe, settings["deviations"])
    return smi.invert(
        model,
        settings["count"],
        recipe,
        None if stops is None else schedule_of(stops, settings["score"]),
        settings["seed"],
        batch_size=settings["batch_size"],
        device=job.device,
        execution=engines.execution(engines.chosen(job.sources.engine, job.device), settings["precision"]),
        checkpoint=job.checkpoint,
        progress=job.progress,
        should_stop=job.should_stop,
        targets=settings.get("targets"),
        snapshots=settings.get("snapshots", ()),
    )


def _figures(images: smi.SyntheticImages) -> dict[str, Any]:
    made = images.made
    last = made["stages"][-1]
    batches = -(-images.count // made["batch_size"])
    return {
        "seconds": made["seconds"],
        "iterations": made["iterations"],
        "iterations_per_second": made["iterations"] * batches / made["seconds"],
        "last_stage_iterations_per_second": last["iterations"] * batches / last["seconds"],
        "stages": made["stages"],
        "engine": "+".join(name for name in ("compile", "cuda_graphs") if made.get(name)) or "eager",
        "loss": made["history"]["loss"][-1],
        "history": made["history"],
    }


def _pictures(model: nn.Module, data: dict[str, Any], job: Job) -> smi.SyntheticImages:
    """Noise or real pictures, chosen by the seed, with all or some patches of each."""
    settings = job.task.settings
    count, generator = settings["count"], torch.Generator().manual_seed(settings["seed"])
    if settings["source"] == "real":
        split = split_of(job, "data", data)
        if count > len(split):
            raise BenchError(f"{count} real images asked for; the training split holds {len(split)}")
        chosen = torch.randperm(len(split), generator=generator)[:count].tolist()
        pairs = [split[index] for index in chosen]
        pixels = torch.stack([picture for picture, _ in pairs])
        targets = torch.tensor([int(label) for _, label in pairs])
    else:
        pixels = _noise(model, (count, *data["input_size"]), generator)
        targets = torch.randint(0, adapt(model).classes, (count,), generator=generator)
    tokens = adapt(model)
    made = {key: settings[key] for key in ("source", "seed", "count", "random_patches")}
    kept = _random_patches(count, tokens.num_patches, settings["random_patches"], generator)
    return smi.SyntheticImages(pixels, targets, kept, tokens.patch_size, made)


def _noise(model: nn.Module, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """What inversions start from: standard normal noise in normalised space, clamped to valid pixels, as [0, 1]."""
    mean, std = (values.cpu() for values in normalisation(model))
    return (torch.randn(shape, generator=generator) * std + mean).clamp(0, 1)


def _random_patches(count: int, patches: int, kept: int | None, generator: torch.Generator) -> Tensor | None:
    """Sorted indices [count, kept] of as many patches of each picture, or None for all."""
    if kept is None:
        return None
    return torch.rand(count, patches, generator=generator).argsort(1)[:, :kept].sort(1).values

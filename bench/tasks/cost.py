"""Kind "cost": what an iteration costs, of an inversion and of the published way beside it (measurement/measure.py).

settings: model (bench.models.describe without weights: random ones do), resolution, recipe (smi.Recipe as JSON),
stopping ({"at", "drop"} or None), batch, precision, beside (further engines, see measurement/measure.py), repetitions,
warmup; engine (of engines.MODES; absent: eager).
Every measurement is a process of its own, and on one machine no two measure at a time.
"""

from __future__ import annotations

import fcntl
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import smi
from bench import models
from bench.engine.task import Job
from bench.tasks.measurement.process import measured
from smi.rebirth import Schedule, schedule_of

POLL_SECONDS = 0.5


def run(job: Job) -> dict[str, Any]:
    """Metrics, all of the last stage unless said otherwise: engines {name: {median, least, most (seconds of an
    iteration), repetitions, iterations_per_second, images_per_second, memory (of smi and reference)}}; parts (seconds
    of an iteration, see measurement/measure.py); matmul_gmacs_per_second (of a plain product on the same device, in
    the same process); stages, average_iterations_per_second and finished_images_per_second of a whole run (eager
    only: other engines would be built anew for each stage; `batch` trajectories of a Rebirth finish `parts` images
    each); FLOPs in both conventions; threads; load (the machine's load average over the last minute, this measurement
    included)."""
    settings = job.task.settings
    stages = _stages(settings)
    kept = stages[-1]["patches"] if settings["stopping"] else None
    mode = settings.get("engine", "eager")
    engines = ["smi", *settings["beside"]]
    request = {
        "model": settings["model"],
        "resolution": settings["resolution"],
        "recipe": settings["recipe"],
        "kept": kept,
        "stages": [stage["patches"] for stage in stages[:-1]] if mode == "eager" else [],
        "batch": settings["batch"],
        "precision": settings["precision"],
        "mode": mode,
        "engines": engines,
        "repetitions": settings["repetitions"],
        "warmup": settings["warmup"],
        "device": job.device,
    }
    with alone(job):
        job.progress(0, 1 + len(engines), {})
        timed = measured({**request, "what": "time"}, job.should_stop)
        figures = {}
        for index, engine in enumerate(engines):
            job.progress(1 + index, 1 + len(engines), {})
            figures[engine] = _speed(timed["seconds"][engine], settings["batch"])
            if engine in ("smi", "reference"):  # the others are measured where they are the method
                of_one = {**request, "engines": [engine], "what": "memory"}
                figures[engine]["memory"] = measured(of_one, job.should_stop)
    total = sum(stage["iterations"] for stage in stages)
    return {
        "engines": figures,
        **{name: timed[name] for name in ("parts", "matmul_gmacs_per_second", "threads", "load")},
        "stages": stages,
        **(
            _over_a_run(settings, stages, [*timed["stages"], figures["smi"]["median"]])
            if mode == "eager"
            else {}
        ),
        **_flops(settings, kept, total),
    }


def _over_a_run(
    settings: Mapping[str, Any], stages: list[dict[str, Any]], seconds: Sequence[float]
) -> dict[str, float]:
    """Books each stage's seconds from those of one of its iterations, and gives the average of the whole run."""
    for stage, of_one in zip(stages, seconds, strict=True):
        stage["seconds"] = of_one * stage["iterations"]
    iterations = sum(stage["iterations"] for stage in stages)
    whole = sum(stage["seconds"] for stage in stages)
    images = settings["batch"] * (settings["stopping"] or {}).get("rebirth", 1)
    return {
        "average_iterations_per_second": iterations / whole,
        "finished_images_per_second": images / whole,
    }


def _stages(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """[{patches (None: no patches to choose from), iterations}] of a whole run."""
    iterations = settings["recipe"]["iterations"]
    if settings["stopping"] is None:
        return [{"patches": None, "iterations": iterations}]
    stopping = _stopping(settings)
    patches = models.outline(settings["model"]).patch_embed.num_patches
    ends = [*stopping.at, iterations]
    counts = [None, *stopping.kept_counts(patches)]
    starts = [0, *stopping.at]
    return [
        {"patches": count, "iterations": end - start}
        for count, start, end in zip(counts, starts, ends, strict=True)
    ]


def _stopping(settings: Mapping[str, Any]) -> Schedule | None:
    chosen = settings["stopping"]
    return None if chosen is None else schedule_of(chosen)


def _speed(seconds: Sequence[float], batch: int) -> dict[str, float]:
    median = statistics.median(seconds)
    return {
        "median": median,
        "least": min(seconds),
        "most": max(seconds),
        "repetitions": len(seconds),
        "iterations_per_second": 1 / median,
        "images_per_second": batch / median,
    }


def _flops(settings: Mapping[str, Any], kept: int | None, iterations: int) -> dict[str, float]:
    """The paper's convention per image and per batch of 128, in the last stage and over the run; exact GMACs."""
    model = models.outline(settings["model"])
    size = {} if hasattr(model, "patch_embed") else {"image_size": settings["resolution"]}
    figures = {
        "paper_gflops_per_image": smi.flops.paper_gflops(model, kept, 1, **size),
        "paper_gflops": smi.flops.paper_gflops(model, kept, **size),
        "exact_gmacs": smi.flops.exact_gmacs(model, kept, **size),
    }
    if not size:
        average = smi.flops.run_average_gflops(model, _stopping(settings), iterations)
        figures["paper_gflops_run_average"] = average
    return figures


@contextmanager
def alone(job: Job) -> Iterator[None]:
    """Hold this user's measuring lock on this machine; the system frees it when the holder dies."""
    path = Path(tempfile.gettempdir()) / f"smi-measuring-{os.getuid()}.lock"
    with path.open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if job.should_stop():
                    raise smi.Interrupted("stopped while another measurement was running") from None
                time.sleep(POLL_SECONDS)
        yield

"""Cost of an iteration (cost half of Table 3), measured: one page per device, results/cost/<device>.md.

Each figure of this project stands beside the published way's, measured in turns in the same process.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.experiments import paper
from bench.experiments.cost.goals import (
    FINISHED,
    GOAL_NOTES,
    Record,
    goals,
    held,
    on_gpu,
    rate,
    ratio,
    share_of_matmul,
    where,
)
from bench.publish.manifest import Sheet
from bench.publish.parts import NOT_RUN, NOTHING, figure, footer, markdown, method_title, percent
from bench.publish.words import plain

NOTES = """\
Medians of single iterations; ± is half the range from the fastest to the slowest. "x published" is the published way
(published_way.py: weights' gradients, all attention maps kept, all patches embedded, whole-image Adam; always fp32)
of the same method and as many patches, over ours, taking turns in one process. Sparse is the last stage, 46 of 196
patches, of Rebirth the last part's; "over a run" weighs the stages by their iterations, and images are finished ones,
of which a trajectory of Rebirth gives one a part. FLOPs are the paper's convention for 128 images, exact
GMACs are of one image's forward. bf16 runs the model under autocast; pixels, losses and Adam stay fp32.
Engine is how ours runs the model (docs/speed.md), "x eager" over the same without it. Weights are random: they cost the
same. The paper's it/s are of a GPU and a batch it does not name: compare ratios."""

MEMORY_CPU = """\
Memory is what one iteration adds: bytes kept for the backward pass, weights apart (ours, and the published way's)."""
MEMORY_GPU = "Memory is the peak of torch's counter, weights included (ours, and the published way's)."

SHARE_NOTES = """\
Backward includes the loss. Pixels: jitter, gathering and scattering pixels, total variation. Optimiser: Adam, clamp and
writing the pixels back. GMAC/s: multiply-accumulates of the step as made, attention included, patch similarity not;
beside it those of torch's product of two large square matrices in the same precision, in the same process. On a CPU
ours can pass that product, which packs its matrices in every call: our weights are packed once (docs/speed.md)."""


def text(sheet: Sheet) -> str:
    """The scale's page, markdown: ratios and goals, and where each device's own page is."""
    links = "\n".join(f"- [{path.stem}](../{path.as_posix()})" for path in pages(sheet))
    parts = [f"# {plain(sheet.title)}, {sheet.scale} scale"]
    for device in sorted({record["device"] for record in _done(sheet)}):
        records = [record for record in _done(sheet) if record["device"] == device]
        parts += [f"## Ratios and goals on {plain(device)}", goals(records, on_gpu(records))]
    parts += ["## Pages, one for each device", links] if links else [NOT_RUN]
    return "\n\n".join([*parts, "## How this was made", footer(sheet)]) + "\n"


def pages(sheet: Sheet) -> dict[Path, str]:
    """Path below results/ -> page, for every device that the records come from."""
    made = {}
    for device in sorted({record["device"] for record in _done(sheet)}):
        own = {name: record for name, record in sheet.records.items() if record["device"] == device}
        made[Path("cost", f"{slug(device)}.md")] = _page(replace(sheet, records=own), device)
    return made


def slug(device: str) -> str:
    """A device's name as a file name: `Intel(R) Xeon(R) CPU` -> `intel-xeon-cpu`."""
    plain = re.sub(r"\((r|tm|c)\)", " ", device.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "unknown"


def _page(sheet: Sheet, device: str) -> str:
    """The page of one device, markdown."""
    records = _done(sheet)
    gpu = on_gpu(records)
    threads = ", ".join(sorted({str(record["metrics"]["threads"]) for record in records}))
    parts = [
        f"# Cost of an iteration on {plain(device)}" + ("" if gpu else f", threads: {threads}"),
        markdown([_row(sheet, record) for record in records]),
        NOTES,
        load(records),
        MEMORY_GPU if gpu else MEMORY_CPU,
        "## Ratios and goals",
        goals(records, gpu),
        GOAL_NOTES,
        *([] if gpu else ["### On a GPU, with the paper's batch", goals([], gpu=True)]),
        "## Where an iteration's time goes",
        markdown([_share(record, sheet) for record in records]),
        SHARE_NOTES,
        "## How this was made",
        footer(sheet),
    ]
    return "\n\n".join(parts) + "\n"


def _done(sheet: Sheet) -> list[dict[str, Any]]:
    """The records of done measurements in the order of the grid, each with its cell's axes."""
    found = []
    for entry in sheet.cells:
        record = sheet.records.get(entry["tasks"].get("cost", ""))
        if record is not None and record["status"] == "done":
            found.append({**record, "cell": entry["cell"]})
    return found


def load(records: Sequence[Record]) -> str:
    """How busy the machine was, in a sentence: what a reader must know before trusting absolute speeds."""
    loads = [record["metrics"]["load"] for record in records if "load" in record["metrics"]]
    if len(loads) < len(records):
        return "How busy the machine was is not on record. Ratios were measured in turns; do not trust absolute speeds."
    most, cores = max(loads), max(record["cpus"] for record in records)
    said = f"The machine's load average was {min(loads):.1f} to {most:.1f} on {cores} cores while this was measured"
    if on_gpu(records) or most <= cores + 0.5:
        return said + "."
    return (
        said
        + ": **other work ran beside it**. Ratios were measured in turns and hold; absolute speeds are too low."
    )


def row_of_speed(record: Record) -> dict[str, str]:
    """Our iterations and images per second."""
    ours = record["metrics"]["engines"]["smi"]
    spread = (1 / ours["least"] - 1 / ours["most"]) / 2
    return {
        "it/s": f"{ours['iterations_per_second']:.3g} ± {spread:.2g} ({ours['repetitions']})",
        "images/s": f"{ours['images_per_second']:.3g}",
    }


def _row(sheet: Sheet, record: Record) -> dict[str, str]:
    cell, metrics = record["cell"], record["metrics"]
    of_paper = {"model": cell["model"], "method": cell["method"]}
    patches = metrics["stages"][-1]["patches"]
    return {
        "method": method_title(sheet, cell["method"]),
        **where(cell),
        "patches": "all" if patches is None else str(patches),
        **row_of_speed(record),
        "it/s over a run": figure(metrics.get("average_iterations_per_second"), 2),
        "images/s over a run": figure(metrics.get(FINISHED), 4),
        "x published": _times(record, "reference"),
        "x published dense": _times(record, "reference_dense"),
        "x our dense": _times(record, "smi_dense"),
        "x eager": _times(record, "smi_eager"),
        "paper: x dense": figure(paper.figure("table3", "speedup", **of_paper)),
        "paper it/s": figure(paper.figure("table3", "iterations_per_second", **of_paper)),
        "FLOPs (G)": figure(metrics["paper_gflops"]),
        "over a run (G)": figure(metrics.get("paper_gflops_run_average")),
        "exact GMACs": figure(metrics["exact_gmacs"], 4),
        "memory (MiB)": _memory(record, "smi"),
        "published (MiB)": _memory(record, "reference"),
        "paper (MB)": figure(paper.figure("table3", "gpu_mb", **of_paper)),
    }


def _times(record: Record, other: str) -> str:
    value = ratio(record, other)
    return NOTHING if value is None else f"{value:.2f}"


def _memory(record: Record, engine: str) -> str:
    return figure(held(record, engine), 1)


def _share(record: Record, sheet: Sheet) -> dict[str, str]:
    cell, parts = record["cell"], record["metrics"]["parts"]
    shares = {name: max(0.0, seconds) / sum(parts.values()) for name, seconds in parts.items()}
    shown = {name: percent(shares.get(name), 0) for name in ("forward", "backward", "pixels", "optimiser")}
    if "model" in shares:  # a replayed CUDA graph
        shown["forward"] = f"{percent(shares['model'], 0)} with backward"
    return {
        "method": method_title(sheet, cell["method"]),
        **where(cell),
        **shown,
        "GMAC/s": figure(rate(record), 0),
        "plain matmul": figure(record["metrics"].get("matmul_gmacs_per_second"), 0),
        "share of it": percent(share_of_matmul(record), 0),
    }

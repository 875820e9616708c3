"""Cost of an iteration (cost half of Table 3), measured: one page per device, results/cost/<device>.md.

Each figure of this project stands beside the published way's, measured in turns in the same process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import smi
from bench import models, paper
from bench.tables.parts import NOTHING, figure, footer, markdown, percent
from bench.tables.published import Sheet

Record = Mapping[str, Any]
TITLES = {
    "deit_tiny_patch16_224": "DeiT/16-Tiny",
    "deit_small_patch16_224": "DeiT/16-Small",
    "deit_base_patch16_224": "DeiT/16-Base",
    "resnet18": "ResNet18",
}

NOTES = """\
Medians of single iterations; ± is half the range from the fastest to the slowest. "x published" is the published way
(bench/reference.py: weights' gradients, all attention maps kept, all patches embedded, whole-image Adam; always fp32)
of the same method and as many patches, over ours, taking turns in one process. Sparse is the last stage, 46 of 196
patches; "over a run" weighs the stages by their iterations. FLOPs are the paper's convention for 128 images, exact
GMACs are of one image's forward. bf16 runs the model under autocast; pixels, losses and Adam stay fp32.
Weights are random: they cost the same. The paper's it/s are of a GPU and a batch it does not name: compare ratios."""

MEMORY_CPU = """\
Memory is what one iteration adds: bytes kept for the backward pass, weights apart (ours, and the published way's)."""
MEMORY_GPU = "Memory is the peak of torch's counter, weights included (ours, and the published way's)."

GOAL_NOTES = """\
"Multiplications" is the ratio of the two steps' exact multiply-accumulates: what would be measured if both ran at the
same rate. Where it lies below a goal, frozen weights and fewer tokens alone do not reach that goal in one precision."""

# (what, method, engine over ours, goal on a CPU, goal on a GPU); None: no goal there.
GOALS = (
    ("published dense over our dense", "deepinversion_dense", "reference", 1.5, None),
    ("published sparse over our sparse, last stage", "deepinversion_sparse", "reference", 2.0, 10.0),
    ("published dense over our sparse, last stage", "deepinversion_sparse", "reference_dense", 6.0, 40.0),
    ("our dense over our sparse, last stage", "deepinversion_sparse", "smi_dense", None, None),
    ("PSAQ-ViT as published over ours", "psaq_dense", "reference", None, 10.0),
)


def text(sheet: Sheet) -> str:
    """The scale's page, markdown: ratios and goals, and where each device's own page is."""
    links = "\n".join(f"- [{path.stem}](../{path.as_posix()})" for path in pages(sheet))
    parts = [f"# {sheet.title}, {sheet.scale} scale"]
    for device in sorted({record["device"] for record in _done(sheet)}):
        records = [record for record in _done(sheet) if record["device"] == device]
        parts += [f"## Ratios and goals on {device}", _goals(records)]
    parts += ["## Pages, one for each device", links] if links else ["not run"]
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
    on_gpu = records[0]["device_type"] == "gpu"
    threads = ", ".join(sorted({str(record["metrics"]["threads"]) for record in records}))
    parts = [
        f"# Cost of an iteration on {device}" + ("" if on_gpu else f", threads: {threads}"),
        markdown([_row(sheet, record) for record in records]),
        NOTES,
        load(records),
        MEMORY_GPU if on_gpu else MEMORY_CPU,
        "## Ratios and goals",
        _goals(records),
        GOAL_NOTES,
        "## Where an iteration's time goes",
        markdown([_share(record, sheet) for record in records]),
        "Rest: gathering and scattering pixels, total variation, Adam and clamp. GMAC/s: exact forward, twice.",
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
    if records[0]["device_type"] == "gpu" or most <= cores + 0.5:
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
    where = {"model": cell["model"], "method": cell["method"]}
    patches = metrics["stages"][-1]["patches"]
    return {
        "model": TITLES.get(cell["model"], cell["model"]),
        "method": sheet.methods[cell["method"]]["title"],
        "batch": str(cell["batch"]),
        "precision": cell["precision"],
        "patches": "all" if patches is None else str(patches),
        **row_of_speed(record),
        "it/s over a run": figure(metrics["average_iterations_per_second"], 2),
        "x published": _times(record, "reference"),
        "x published dense": _times(record, "reference_dense"),
        "x our dense": _times(record, "smi_dense"),
        "paper: x dense": figure(paper.figure("table3", "speedup", **where)),
        "paper it/s": figure(paper.figure("table3", "iterations_per_second", **where)),
        "FLOPs (G)": figure(metrics["paper_gflops"]),
        "over a run (G)": figure(metrics.get("paper_gflops_run_average")),
        "exact GMACs": figure(metrics["exact_gmacs"], 4),
        "memory (MiB)": _memory(record, "smi"),
        "published (MiB)": _memory(record, "reference"),
        "paper (MB)": figure(paper.figure("table3", "gpu_mb", **where)),
    }


def ratio(record: Record, other: str) -> float | None:
    """Median seconds of another engine over ours; None where it was not measured beside it."""
    engines = record["metrics"]["engines"]
    return engines[other]["median"] / engines["smi"]["median"] if other in engines else None


def _times(record: Record, other: str) -> str:
    value = ratio(record, other)
    return NOTHING if value is None else f"{value:.2f}"


def _memory(record: Record, engine: str) -> str:
    memory = record["metrics"]["engines"].get(engine, {}).get("memory", {})
    return figure(memory.get("gpu_mib", memory.get("saved_mib")), 1)


def _goals(records: Sequence[Record]) -> str:
    """A table with one row per goal, model, batch and precision."""
    rows = []
    for what, method, other, on_cpu, on_gpu in GOALS:
        for record in records:
            cell, value = record["cell"], ratio(record, other)
            if cell["method"] != method or value is None:
                continue
            goal = on_gpu if record["device_type"] == "gpu" else on_cpu
            rows.append(
                {
                    "ratio": what,
                    "model": TITLES.get(cell["model"], cell["model"]),
                    "batch": str(cell["batch"]),
                    "our precision": cell["precision"],
                    "measured": f"{value:.2f}",
                    "multiplications": figure(_multiplications(record, other)),
                    "goal": NOTHING if goal is None else f">= {goal:g}",
                    "reached": NOTHING if goal is None else ("yes" if value >= goal else "no"),
                }
            )
    return markdown(rows) if rows else "not run"


def _multiplications(record: Record, other: str) -> float | None:
    """Multiply-accumulates of the other engine's step over ours: what the ratio would be at equal speed of both.

    Ours: frozen weights, kept patches embedded alone, and patches of the last block as keys and values only. None
    where the loss costs more than the model (PSAQ-ViT's patch similarity).
    """
    cell = record["cell"]
    if record["settings"]["recipe"]["name"] != "deepinversion":
        return None
    model, kept = models.outline(cell["model"]), record["metrics"]["stages"][-1]["patches"]
    spared = 2 * 10 * (kept or model.patch_embed.num_patches) * model.embed_dim**2 / 1e9
    ours = smi.flops.step_gmacs(model, kept, embed_kept_only=True) - spared
    if other == "smi_dense":
        theirs = (
            smi.flops.step_gmacs(model) - 2 * 10 * model.patch_embed.num_patches * model.embed_dim**2 / 1e9
        )
    else:
        all_patches = other.endswith("_dense")
        theirs = smi.flops.step_gmacs(model, None if all_patches else kept, weight_gradients=True)
    return theirs / ours


def _share(record: Record, sheet: Sheet) -> dict[str, str]:
    cell, parts = record["cell"], record["metrics"]["parts"]
    total = sum(parts.values())
    return {
        "model": TITLES.get(cell["model"], cell["model"]),
        "method": sheet.methods[cell["method"]]["title"],
        "precision": cell["precision"],
        **{name: percent(max(0.0, parts[name]) / total, 0) for name in ("forward", "backward", "rest")},
        "GMAC/s": figure(_rate(record), 0),
    }


def _rate(record: Record) -> float | None:
    """Multiply-accumulates a second of the exact forward and as many passes backward, frozen weights: 2 in all."""
    return 2 * record["metrics"]["exact_gmacs"] * record["metrics"]["engines"]["smi"]["images_per_second"]

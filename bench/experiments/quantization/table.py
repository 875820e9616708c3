"""Table 3: upstream cost and data-free quantization, ours beside the paper's.

First the cost of the real DeiT models, by the closed form and, where it was measured, by measurement; then the
accuracy of the models that were quantized at this scale.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

import smi
from bench import models
from bench.experiments import paper
from bench.experiments.builders.quantization import DEFAULT, QUANTIZER
from bench.experiments.builders.schemas import Schedule
from bench.experiments.quantization import apart
from bench.experiments.quantization.apart import ROW
from bench.grid import PAPER_SCALE
from bench.publish import scale_notes, told_apart
from bench.publish.manifest import Sheet
from bench.publish.parts import (
    NOT_RUN,
    NOTHING,
    difference,
    figure,
    footer,
    heading,
    holes,
    markdown,
    mean_std,
    method_title,
    model_title,
    percent,
    status,
    telling,
)
from bench.publish.words import plain
from smi.rebirth import Schedule as AnySchedule

PAPER_TABLE = "table3"
PAPER_DATASET, PAPER_RESOLUTION = "imagenet", 224  # what the paper's figures are of

COST_NOTES = """\
FLOPs follow the paper's convention, by its closed form: multiply-accumulates of linear layers, patch embedding and
head, four operations per LayerNorm element, attention's two products left out, times 3 (forward and backward with
weight gradients, which inversion never uses), times 128 images. The paper's sparse figures are those of the last stage
alone (46 patches and CLS); "average over the run" weighs every stage by its iterations. Exact GMACs are of one
image's forward pass in the last stage, with attention and without norms. What PSAQ-ViT's own loss costs is in
neither. "77%" is 1 - 46/196 = 76.5%. Iterations per second (in the last stage, fp32) and memory are what
experiments/cost.yaml has measured, on the device named; what it has not measured says "not run".
Absolute speeds depend on what else the machine was doing; ratios to the published way, measured in turns, are in
results/cost/."""

ACCURACY_NOTES = """\
W4/A8 is 4-bit weights and 8-bit activations. Top-1 (%) is mean ± sample standard deviation over seeds (n) of the
images; the model that is inverted is the same for all seeds. Logit error is ‖quantized - full precision‖ /
‖full precision‖ over the logits of all test pictures. Seconds are of one inversion of {count} images, optimisation
alone. Patches are those of a picture that are fed forward, in inversion's last stage and in calibration; test
pictures are always fed whole."""


def text(sheet: Sheet) -> str:
    """The whole page, markdown."""
    frame = cells_frame(sheet)
    paper_scale = sheet.scale == PAPER_SCALE
    model = plain(scale_notes.subject(sheet))
    if sheet.grid == PAPER_TABLE:
        parts = [f"# Table 3, {scale_notes.named(sheet)}: {heading(sheet.title)}"]
    else:
        parts = [f"# {plain(sheet.title)}, {scale_notes.named(sheet)}"]
    if not paper_scale:
        parts.append(scale_notes.disclaimer(sheet))
    cost = cost_rows(sheet)
    if cost:
        parts += ["## Upstream cost: DeiT/16 at 224x224", markdown(cost), COST_NOTES]
    parts += [f"## Data-free quantization: {model}", markdown(_accuracy_rows(sheet, frame))]
    parts.append(ACCURACY_NOTES.format(count=_count(sheet)))
    if apart_rows := apart.rows(sheet):
        parts += ["### Rows told apart", markdown(apart_rows), told_apart.NOTE]
    parts += [_schedules(sheet), *_scale_notes(sheet, frame)]
    parts += ["## How this was made", footer(sheet)]
    return "\n\n".join(parts) + "\n"


# ---- cost


def cost_rows(sheet: Sheet) -> list[dict[str, str]]:
    """One row per real model and method that inverts."""
    rows = []
    schedules = sheet.paper.get("settings", {}).get("schedules", {})
    for name in sheet.paper.get("axes", {}).get("model", []):
        if not models.is_named(name):
            continue  # a folder's: no name tells its shape
        model = models.outline(name)
        for label in sheet.paper["axes"]["method"]:
            method = sheet.methods[label]
            if method["source"] == "inversion":
                schedule = schedules.get(method.get("stopping"))
                rows.append(_cost_row(sheet, model, name, label, method, schedule))
    return rows


def _cost_row(
    sheet: Sheet, model: Any, name: str, label: str, method: dict[str, Any], schedule: dict[str, Any] | None
) -> dict[str, str]:
    overrides = sheet.paper["settings"].get("recipes", {}).get(method["recipe"], {})
    iterations = smi.recipe(method["recipe"], **overrides).iterations
    stopping = None if schedule is None else Schedule(**schedule).stopping().resolved(iterations)
    speed, memory = _measured(sheet, name, method, stopping)
    patches = model.patch_embed.num_patches
    counts = () if stopping is None else stopping.kept_counts(patches)
    kept = counts[-1] if counts else None
    gflops = smi.flops.paper_gflops(model, kept)
    dense = smi.flops.paper_gflops(model)
    reported = {
        column: paper.figure(PAPER_TABLE, column, model=name, method=label)
        for column in ("iterations_per_second", "gflops", "gpu_mb")
    }
    return {
        "model": model_title(name),
        "method": method_title(sheet, label),
        "sparsity": percent(0.0 if stopping is None else stopping.sparsity(patches)),
        "it/s": speed,
        "paper it/s": figure(reported["iterations_per_second"]),
        "FLOPs (G)": f"{gflops:.2f}" + ("" if kept is None else f" ({100 * (gflops / dense - 1):.2f}%)"),
        "paper FLOPs (G)": figure(reported["gflops"]),
        "difference": difference(round(gflops, 2), reported["gflops"]),
        "average over the run (G)": figure(smi.flops.run_average_gflops(model, stopping, iterations)),
        "exact GMACs": figure(smi.flops.exact_gmacs(model, kept), 4),
        "memory (MiB)": memory,
        "paper memory (MB)": figure(reported["gpu_mb"]),
    }


def _measured(
    sheet: Sheet, model: str, method: dict[str, Any], stopping: AnySchedule | None
) -> tuple[str, str]:
    """(it/s, memory) of the measurement at the largest batch, a GPU's before a CPU's, or "not run" twice."""
    schedule = None if stopping is None else stopping.to_json()
    fitting = [
        record
        for record in sheet.quoted.values()
        if (settings := record["settings"])["model"]["name"] == model
        and settings["recipe"]["name"] == method["recipe"]
        and settings["stopping"] == schedule
        and settings["precision"] == "fp32"
        and settings.get("resolution", PAPER_RESOLUTION) == PAPER_RESOLUTION
        and "engine" not in settings  # eager
        and method.get("score", "cls_attention") == "cls_attention"
    ]
    if not fitting:
        return NOT_RUN, NOT_RUN
    record = max(fitting, key=lambda found: (found["device_type"] == "gpu", found["settings"]["batch"]))
    figures, batch = record["metrics"]["engines"]["smi"], record["settings"]["batch"]
    memory = figures["memory"]
    kind, held = ("peak", memory["gpu_mib"]) if "gpu_mib" in memory else ("for backward", memory["saved_mib"])
    speed = f"{figures['iterations_per_second']:.2f} (batch {batch}, {record['device']})"
    return speed, f"{held:.0f} ({kind}, batch {batch})"


# ---- accuracy


def cells_frame(sheet: Sheet) -> pd.DataFrame:
    """One line per cell: its axes, its status and the figures of its records."""
    lines = []
    for entry in sheet.cells:
        cell, tasks = entry["cell"], entry["tasks"]
        final = "evaluate" if sheet.methods[cell["method"]]["source"] == "none" else "quantize"
        line = {**cell, "status": status(tasks, final, sheet.records), "task": tasks.get(final)}
        for column in ("teacher", "images", final):
            record = sheet.records.get(tasks.get(column, ""))
            if record is not None and record["status"] == "done":
                line |= {f"{column}.{name}": value for name, value in record["metrics"].items()}
        line["top1"] = line.get(f"{final}.top1")
        line["logit_error"] = line.get("quantize.logit_error")
        if final == "evaluate" and QUANTIZER in cell:
            line[QUANTIZER] = NOTHING  # one row, whatever quantizers there are
        lines.append(line)
    return pd.DataFrame(lines)


def _accuracy_rows(sheet: Sheet, frame: pd.DataFrame) -> list[dict[str, str]]:
    """One row per model, method and quantizer, and whatever else tells cells apart; the bit-widths side by side; seeds
    are not part of a row's identity. The paper's figures are of its own quantizer and data, and stand beside no other.
    """
    all_bits = list(dict.fromkeys(frame["bits"]))
    of_paper = set(frame["model"][frame["dataset"] == PAPER_DATASET])
    with_paper = any(row.get("model") in of_paper for row in paper.rows(PAPER_TABLE))
    more = telling((entry["cell"] for entry in sheet.cells), *ROW, QUANTIZER)
    rows = []
    more = [*([QUANTIZER] if QUANTIZER in frame else []), *more]
    for key, group in frame.groupby(["model", "method", *more], sort=False, dropna=False):
        model, label, *values = key
        row = {"model": model_title(model), "method": method_title(sheet, label)}
        row |= {axis: str(value) for axis, value in zip(more, values, strict=True)}
        row |= images_columns(group)
        for bits in all_bits:
            cells = group[group["bits"] == bits]
            mean, shown = aggregate(cells, "top1")
            row[f"{bits} top-1"] = shown
            if with_paper:
                column = "FP" if sheet.methods[label]["source"] == "none" else bits
                theirs = (group["dataset"] == PAPER_DATASET).all()
                if QUANTIZER in group:
                    theirs &= group[QUANTIZER].isin([DEFAULT, NOTHING]).all()
                reported = paper.figure(PAPER_TABLE, column, model=model, method=label) if theirs else None
                row[f"{bits} paper"] = figure(reported)
                row[f"{bits} difference"] = difference(mean, reported)
            row[f"{bits} logit error"] = _errors(cells)
        rows.append(row)
    return rows


def images_columns(group: pd.DataFrame) -> dict[str, str]:
    """Sparsity, patches and seconds of the method's images; each set of images once, whatever the bit-widths."""
    known = group.dropna(subset=["images.kept"]) if "images.kept" in group else group.iloc[:0]
    known = known.drop_duplicates("seed")
    if known.empty:
        return {"sparsity": NOTHING, "patches": NOTHING, "s per inversion": NOTHING}
    first = known.iloc[0]
    seconds = known["images.seconds"].dropna() if "images.seconds" in known else known.iloc[:0, 0]
    return {
        "sparsity": percent(first["images.sparsity"]),
        "patches": f"{first['images.kept']:.0f} of {first['images.patches']:.0f}",
        "s per inversion": mean_std(list(seconds), 1) if len(seconds) else NOTHING,
    }


def aggregate(cells: pd.DataFrame, column: str) -> tuple[float | None, str]:
    """(mean, text) over seeds; cells that share one task (full precision) count once."""
    once = cells.drop_duplicates("task") if cells["task"].notna().all() else cells
    done = once[once["status"] == "done"]
    missing = holes(once["status"])
    if done.empty:
        return None, missing or NOT_RUN
    text = mean_std(list(done[column]))
    return float(done[column].mean()), f"{text}, {missing}" if missing else text


def _errors(cells: pd.DataFrame) -> str:
    values = cells["logit_error"].dropna()
    return f"{mean_std(list(100 * values))} %" if len(values) else NOTHING


# ---- words


def _schedules(sheet: Sheet) -> str:
    """How long each recipe runs at this scale, and when patches stop."""
    named = {method["recipe"] for method in sheet.methods.values() if method.get("recipe")}
    lengths = []
    for name in sorted(named):
        recipe = smi.recipe(name, **sheet.settings.get("recipes", {}).get(name, {}))
        rounds = f"{recipe.rounds} rounds of " if recipe.rounds > 1 else ""
        lengths.append(
            f"{name} {rounds}{recipe.iterations // recipe.rounds} iterations at lr {recipe.learning_rate}"
        )
    stops = [f"{name} {_said(schedule)}" for name, schedule in sheet.settings.get("schedules", {}).items()]
    return f"Schedules at this scale: {'; '.join(lengths + stops)}."


def _said(schedule: dict[str, Any]) -> str:
    at = "/".join(map(str, schedule.get("at") or ()))
    if "rebirth" in schedule:
        return f"finishes {schedule['rebirth']} images a trajectory, at {at or 'equal distances'}"
    again = f", all ranked anew every {every}" if (every := schedule.get("reenter_every")) else ""
    return f"stops at {at}, each time the fraction {schedule['drop']} of what is in{again}"


def _scale_notes(sheet: Sheet, frame: pd.DataFrame) -> list[str]:
    """What the scale can show, and what is known of the model that was inverted."""
    notes = scale_notes.reading(sheet)
    if "teacher.validation_top1" in frame:
        known = frame.dropna(subset=["teacher.validation_top1"]).drop_duplicates(["model", "dataset"])
        several = known["model"].duplicated().any()
        scores = [
            f"{model_title(model)}{f' on {plain(dataset)}' if several else ''} {value:.2f}%"
            for model, dataset, value in zip(
                known["model"], known["dataset"], known["teacher.validation_top1"], strict=True
            )
        ]
        notes.append(f"Trained here; top-1 on the validation split, apart from test: {', '.join(scores)}.")
    if sheet.scale == PAPER_SCALE:
        notes.append("Where the paper's figures do not agree with each other, and what others measured:")
        notes.append(_known(sheet))
    return notes


def _known(sheet: Sheet) -> str:
    lines = list(paper.load()["disagreements"])
    for row in paper.rows("others"):
        if (
            QUANTIZER in row
        ):  # of another quantizer, or beside rows that name theirs: see experiments/four_bits.yaml
            continue
        figures = ", ".join(
            f"{bits} {row[bits]:.2f}" + (f" ± {row[f'{bits} std']:.2f}" if f"{bits} std" in row else "")
            for bits in ("W4/A8", "W8/A8")
            if bits in row
        )
        method = plain(method_title(sheet, row["method"]))
        lines.append(f"{model_title(row['model'])}, {method} ({row['what']}): {figures}.")
    return "\n".join(f"- {line}" for line in lines)


def _count(sheet: Sheet) -> int:
    return sheet.settings.get("images", {}).get("count", 32)

"""The page of deployed models: what a file answers beside its simulation; how large it is, and how fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.publish import scale_notes
from bench.publish.manifest import Sheet
from bench.publish.parts import (
    NOT_RUN,
    figure,
    footer,
    heading,
    markdown,
    mean_std,
    model_title,
    percent,
    status,
)

ENGINES = {
    "deployed": "deployed int8",
    "runtime_fp32": "onnxruntime fp32",
    "torch_fp32": "torch eager fp32",
    "simulated": "simulation",
}
NOTE = """\
Profile integer keeps the quantizers of matrix products' inputs, which is what integer kernels need; exact keeps every
quantizer of the simulation. Agreement and logit difference are between the file and the simulation of the same profile;
logit error is to full precision, of the file and of the whole simulation: norms of differences over norms, over all
test pictures. Milliseconds are of a batch, medians (least to most) of engines that took turns in one process, two calls
a turn, the second one timed. On x86 without VNNI sessions run with session.x64quantprecision=1, so that sums do not
saturate; there integer kernels are slower."""
AGAINST = {
    "runtime_fp32": "against onnxruntime",
    "torch_fp32": "against torch",
}  # deployed, at the smallest batch


def text(sheet: Sheet) -> str:
    """The whole page, markdown."""
    entries = [entry for entry in sheet.cells if "deploy" in entry["tasks"]]
    answers = [entry for entry in entries if "images" in entry["tasks"]]
    speeds = [entry for entry in entries if "images" not in entry["tasks"]]
    parts = [f"# {heading(sheet.title).capitalize()}, {scale_notes.named(sheet)}"]
    if answers:
        parts += ["## What a file answers", markdown(_grouped(sheet, answers, _answers))]
    if speeds:
        parts += ["## How large and how fast", markdown([_speed(sheet, entry) for entry in speeds])]
        parts += _where(sheet, speeds)
    return (
        "\n\n".join([*parts, NOTE, *scale_notes.reading(sheet), "## How this was made", footer(sheet)]) + "\n"
    )


def metrics_of(sheet: Sheet, entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The metrics of a cell's task "deploy"; None where it is not done."""
    if status(entry["tasks"], "deploy", sheet.records) != "done":
        return None
    return sheet.records[entry["tasks"]["deploy"]]["metrics"]


def _grouped(sheet: Sheet, entries: Sequence[Mapping[str, Any]], row: Callable) -> list[dict[str, str]]:
    """One row for the cells that differ in their seed alone."""
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for entry in entries:
        key = tuple(
            entry["cell"][axis] for axis in ("model", "dataset", "bits", "quantizer", "profile", "method")
        )
        groups.setdefault(key, []).append(entry)
    return [row(sheet, key, of_key) for key, of_key in groups.items()]


def _answers(sheet: Sheet, key: tuple, entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    model, dataset, bits, quantizer, profile, _ = key
    row = {"model": f"{model} on {dataset}", "bits": bits, "quantizer": quantizer, "profile": profile}
    done = [found for entry in entries if (found := metrics_of(sheet, entry)) is not None]
    if not done:
        columns = (
            "full precision",
            "simulated",
            "deployed",
            "agreement",
            "logit difference",
            "logit error",
            "whole",
        )
        return row | dict.fromkeys(columns, NOT_RUN)
    shares = {
        name: [100 * one[name] for one in done]
        for name in ("logit_difference", "logit_error", "logit_error_of_whole")
    }
    return row | {
        "full precision": figure(done[0]["top1"]["full_precision"]),
        "simulated": mean_std([one["top1"]["simulated"] for one in done]),
        "deployed": mean_std([one["top1"]["deployed"] for one in done]),
        "agreement": mean_std([one["agreement"] for one in done]) + " %",
        "logit difference": mean_std(shares["logit_difference"]) + " %",
        "logit error": mean_std(shares["logit_error"]) + " %",
        "whole": mean_std(shares["logit_error_of_whole"]) + " %",
    }


def _speed(sheet: Sheet, entry: Mapping[str, Any]) -> dict[str, str]:
    cell, metrics = entry["cell"], metrics_of(sheet, entry)
    row = {
        "model": model_title(cell["model"]),
        "bits": cell["bits"],
        "MB": NOT_RUN,
        "of fp32": NOT_RUN,
        "batch": NOT_RUN,
    }
    if metrics is None:
        return row | dict.fromkeys([*ENGINES.values(), *AGAINST.values()], NOT_RUN)
    sizes = {name: size for name, size in metrics["bytes"].items() if name != "fp32"}
    first, spent = min(metrics["milliseconds"].items(), key=lambda one: int(one[0]))
    row["MB"] = ", ".join(f"{size / 1e6:.1f} ({name})" for name, size in sizes.items())
    row["of fp32"] = ", ".join(percent(size / metrics["bytes"]["fp32"]) for size in sizes.values())
    row["batch"] = ", ".join(metrics["milliseconds"])
    for name, title in ENGINES.items():
        row[title] = "; ".join(
            f"{one[name]['median']:.1f} ({one[name]['least']:.1f} to {one[name]['most']:.1f})"
            for one in metrics["milliseconds"].values()
        )
    for name, title in AGAINST.items():
        ratio = spent[name]["median"] / spent["deployed"]["median"]
        row[title] = f"{ratio:.2f}x at batch {first}"
    return row


def _where(sheet: Sheet, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Device, threads and instruction sets of the measurements, once each."""
    found = {}
    for entry in entries:
        if (metrics := metrics_of(sheet, entry)) is not None:
            device = sheet.records[entry["tasks"]["deploy"]].get("device", "")
            sets = ", ".join(metrics["instructions"]) or "unknown"
            vnni = (
                ""
                if any("vnni" in name or "amx" in name for name in metrics["instructions"])
                else " (no VNNI)"
            )
            found[f"Measured on {device}, {metrics['threads']} threads, instructions {sets}{vnni}."] = None
    return list(found)

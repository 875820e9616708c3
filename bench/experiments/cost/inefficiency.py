"""Table 1: inefficiency of dense inversion, a CNN beside a ViT; FLOPs per image and per batch, said plainly."""

from __future__ import annotations

import smi
from bench import models
from bench.experiments import paper
from bench.experiments.cost.table import load, row_of_speed
from bench.publish.manifest import Sheet
from bench.publish.parts import (
    NOTHING,
    difference,
    figure,
    footer,
    heading,
    markdown,
    model_title,
    status,
    telling,
)

NOTES = """\
FLOPs are the paper's convention, by its closed form: multiply-accumulates of forward and backward, three times the
forward's. The paper prints ResNet18 for ONE image and DeiT/16-Base for a batch of 128, in one column; so its 1184-fold
gap is {per_image:.1f}-fold per image. It does not say its batch for it/s nor its GPU, so those compare in order of
magnitude only. ResNet18 is inverted with the BatchNorm term, which a ViT does not have. Weights are random. it/s is
the median of single iterations ± half the range (n)."""


def _gflops(name: str, resolution: int) -> float:
    """The paper's FLOPs of one image (G)."""
    model = models.outline(name)
    size = None if hasattr(model, "patch_embed") else resolution
    return smi.flops.paper_gflops(model, batch=1, image_size=size)


def text(sheet: Sheet) -> str:
    """The whole page, markdown."""
    rows, per_image, done = [], {}, []
    more = telling((entry["cell"] for entry in sheet.cells), "resolution", "model", "batch")
    for entry in sheet.cells:
        cell, tasks = entry["cell"], entry["tasks"]
        state = status(tasks, "cost", sheet.records)
        record = sheet.records.get(tasks.get("cost", ""), {})
        where = {"model": cell["model"], "resolution": cell["resolution"]}
        reported = paper.figure("table1", "gflops", **where)
        done += [record] if state == "done" else []
        speed = row_of_speed(record) if state == "done" else {"it/s": state, "images/s": NOTHING}
        one = _gflops(cell["model"], cell["resolution"])
        many = smi.flops.PAPER_BATCH * one
        per_image[cell["model"], cell["resolution"]] = one
        counted = one if cell["model"] == "resnet18" else many  # what the paper's column counts
        rows.append(
            {
                "resolution": str(cell["resolution"]),
                "model": model_title(cell["model"]),
                "batch": str(cell["batch"]),
                **{axis: str(cell.get(axis)) for axis in more},
                **speed,
                "paper it/s": figure(paper.figure("table1", "iterations_per_second", **where)),
                "FLOPs per image (G)": figure(one),
                "FLOPs per 128 images (G)": figure(many),
                "paper FLOPs (G)": figure(reported),
                "difference": difference(round(counted, 2), reported),
            }
        )
    vit, cnn = per_image.get(("deit_base_patch16_224", 224)), per_image.get(("resnet18", 224))
    scale = (
        "the paper's batch"
        if sheet.scale == "paper"
        else "small batches; the models are the paper's real ones"
    )
    return (
        "\n\n".join(
            [
                f"# Table 1, {sheet.scale} scale ({scale}): {heading(sheet.title)}",
                markdown(rows),
                *([load(done)] if done else []),
                *([NOTES.format(per_image=vit / cnn)] if vit and cnn else []),
                "## How this was made",
                footer(sheet),
            ]
        )
        + "\n"
    )

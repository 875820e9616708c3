"""Table 4: knowledge transfer without data, ours beside the paper's, with the controls it has to be read with.

One table for each model and pool; data sets side by side, seeds are not part of a row's identity.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.experiments import paper
from bench.grid import PAPER_SCALE
from bench.publish import scale_notes
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
    status,
    telling,
)
from bench.publish.words import code, plain

PAPER_TABLE = "table4"
PANEL = ("model", "pool", "student")  # axes that part tables; others do where they tell cells apart

NOTES = """\
Top-1 (%) is that of the student on whole test pictures, after the last step: mean ± sample standard deviation over
seeds (n) of images, student and draws; the teacher is the same for all seeds. Every row has as many steps and as many
images. Patches are those that teacher and student are shown of an image while the student learns: the inverted ones,
or, for controls through random patches, as many drawn anew each time. Seconds of images are of the inversions behind
one pool, optimisation alone; seconds of steps are of the transfer without its evaluations. Both are by the clock
and include whatever else the machine did: where rows of equal work differ, it was shared. Table 3 has the costs."""

READING = """\
Read every row against its controls. `control: dense, random patches` and `control: noise, random patches` say what
being shown few patches does by itself, whatever was inverted and whatever attention chose; `control: sparse, random
selection` says what attention adds to it; `control: real images` bounds what any images could do."""

PAPER_NOTES = """\
The pool `paper` is the paper's setting (1000 rounds of 100 images, one step each). `affordable` is not: as many steps
on a hundredth of the images. Where the paper's figures disagree among themselves: {disagreements}"""


def text(sheet: Sheet) -> str:
    """The whole page, markdown."""
    frame = cells_frame(sheet)
    parts = [f"# Table 4, {scale_notes.named(sheet)}: {heading(sheet.title)}"]
    if sheet.scale != PAPER_SCALE:
        parts.append(scale_notes.disclaimer(sheet))
    more = telling((entry["cell"] for entry in sheet.cells), *PANEL, "dataset", "method", "seed")
    for key, group in frame.groupby([*PANEL, *more], sort=False, dropna=False):
        model, pool, student, *values = key
        title = f"## {plain(model_title(model))}, pool {code(pool)}: {_pool(sheet, pool)}"
        title += f", student {code(student)}" if student else ""
        title += "".join(f", {axis} {plain(str(v))}" for axis, v in zip(more, values, strict=True))
        parts += [title, markdown(_rows(sheet, group))]
    parts += [NOTES, READING, *_scale_notes(sheet), *_measured(sheet, frame)]
    parts += [
        "Top-1 against steps: `figures/convergence.png`, made from the same records by `python -m bench figures`."
    ]
    return "\n\n".join([*parts, "## How this was made", footer(sheet)]) + "\n"


def cells_frame(sheet: Sheet) -> pd.DataFrame:
    """One line per cell: its axes, its status and the figures of its records."""
    lines = []
    for entry in sheet.cells:
        cell, tasks = entry["cell"], entry["tasks"]
        column = "evaluate" if sheet.methods[cell["method"]]["source"] == "none" else "transfer"
        line: dict[str, Any] = {
            "student": "",  # where the grid has one kind of student
            **cell,
            "status": status(tasks, column, sheet.records),
            "task": tasks.get(column),
        }
        line |= dict.fromkeys(
            ("top1", "images", "kept", "patches", "pictures", "steps", "inverting", "learning")
        )
        record = sheet.records.get(tasks.get(column, ""))
        if record is not None and record["status"] == "done":
            line |= {
                name: record["metrics"].get(name)
                for name in ("top1", "images", "kept", "patches", "pictures")
            }
            line["learning"] = record["metrics"].get("seconds")
            line["steps"] = record["settings"].get("transfer", {}).get("steps")
            sets = [sheet.records.get(name, {}) for key, name in tasks.items() if key.startswith("images_")]
            seconds = [one.get("metrics", {}).get("seconds") for one in sets]
            line["inverting"] = sum(seconds) if seconds and None not in seconds else None
        lines.append(line)
    return pd.DataFrame(lines)


def _rows(sheet: Sheet, frame: pd.DataFrame) -> list[dict[str, str]]:
    model = frame["model"].iloc[0]
    rows = []
    for method, group in frame.groupby("method", sort=False):
        row = {"method": method_title(sheet, method), "patches": patches(group)}
        for dataset, cells in group.groupby("dataset", sort=False):
            mean, row[f"{dataset} top-1"] = aggregate(cells)
            if any(line.get("model") == model for line in paper.rows(PAPER_TABLE)):
                reported = paper.figure(PAPER_TABLE, dataset, model=model, method=method)
                row |= {
                    f"{dataset} paper": figure(reported),
                    f"{dataset} difference": difference(mean, reported),
                }
        row |= {"images": _count(group, "images"), "steps": _count(group, "steps")}
        row |= {"s of images": seconds_of(group, "inverting"), "s of steps": seconds_of(group, "learning")}
        rows.append(row)
    return rows


def aggregate(cells: pd.DataFrame) -> tuple[float | None, str]:
    """(mean, text) over seeds; the teacher is one task for all of them."""
    once = cells.drop_duplicates("task") if cells["task"].notna().all() else cells
    done, missing = once[once["status"] == "done"], holes(once["status"])
    if done.empty:
        return None, missing or NOT_RUN
    shown = mean_std(list(done["top1"]))
    return float(done["top1"].mean()), f"{shown}, {missing}" if missing else shown


def patches(group: pd.DataFrame) -> str:
    known = group.dropna(subset=["kept"])
    return NOTHING if known.empty else f"{known['kept'].iloc[0]:.0f} of {known['patches'].iloc[0]:.0f}"


def _count(group: pd.DataFrame, column: str) -> str:
    known = sorted({int(value) for value in group[column].dropna()})
    return ", ".join(map(str, known)) or NOTHING


def seconds_of(group: pd.DataFrame, column: str) -> str:
    known = [float(value) for value in group[column].dropna()]
    return mean_std(known, 1) if known else NOTHING


def _scale_notes(sheet: Sheet) -> list[str]:
    if sheet.scale == PAPER_SCALE:
        relevant = [line for line in paper.load()["disagreements"] if "Table 4" in line]
        return [PAPER_NOTES.format(disagreements=" ".join(relevant))]
    return scale_notes.reading(sheet)


def _measured(sheet: Sheet, frame: pd.DataFrame) -> list[str]:
    """What these very figures say about sparse against dense and against the controls, in one sentence each."""
    sentences = []
    more = telling((entry["cell"] for entry in sheet.cells), *PANEL, "dataset", "method", "seed")
    for key, group in frame.groupby(["model", "dataset", *PANEL[1:], *more], sort=False, dropna=False):
        model, dataset, pool, student, *values = key
        means = group[group["status"] == "done"].groupby("method")["top1"].agg(["mean", "count"])
        gaps = []
        for other in (
            "deepinversion_dense",
            "dense_random_patches",
            "random_selection",
            "noise_random_patches",
        ):
            if {"deepinversion_sparse", other} <= set(means.index):
                gap = means.loc["deepinversion_sparse", "mean"] - means.loc[other, "mean"]
                gaps.append(f"{gap:+.1f} over {code(method_title(sheet, other))}")
        if gaps:
            taught = f", student {code(student)}" if student else ""
            taught += "".join(f", {axis} {plain(str(v))}" for axis, v in zip(more, values, strict=True))
            place = f"{plain(model_title(model))} on {plain(dataset)}, pool {code(pool)}{taught}"
            sentences.append(f"Measured here, {place}: sparse is {', '.join(gaps)}.")
    return sentences


def _pool(sheet: Sheet, name: str) -> str:
    pool = sheet.settings["pools"][name]
    rounds = "1 round" if pool["rounds"] == 1 else f"{pool['rounds']} rounds"
    steps = "1 step" if pool["steps"] == 1 else f"{pool['steps']} steps"
    return f"{rounds} of {pool['images']} images and {steps} of {pool['batch_size']}"

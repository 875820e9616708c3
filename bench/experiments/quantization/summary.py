"""Table 3 for the report: accuracy, ours beside the paper's, and what inverting the paper's models costs."""

from __future__ import annotations

import pandas as pd

from bench.experiments import paper
from bench.experiments.builders.quantization import DEFAULT, QUANTIZER
from bench.experiments.quantization.apart import ROW
from bench.experiments.quantization.table import (
    PAPER_DATASET,
    PAPER_TABLE,
    aggregate,
    cells_frame,
    cost_rows,
    images_columns,
)
from bench.publish.manifest import Sheet
from bench.publish.parts import NOTHING, mean_std, method_title, model_title, telling
from bench.publish.summary import Column, Summary, Value

FULL = "full precision"
STAND_IN = "deit_tiny_patch16_224"  # whose figures stand beside models that the paper knows nothing of
NOTE = """\
Top-1 in %, mean ± sample standard deviation over seeds (number of seeds). Lost: points of top-1 below full precision;
less is better, and this is the column to read. Logit error: how far the quantized model's outputs are from full
precision's. Seconds are of one inversion."""
OTHER_MODEL = """\
The paper has no figures for these models: beside ours stand those of its {model} on ImageNet, so compare which methods
lose much and which little, not the figures themselves;
their bars have a scale of their own."""
COST_NOTE = """\
FLOPs by the paper's own formula, for 128 images in the last stage of inversion: a check of the formula. Iterations
per second were measured where a device is named; the paper's are of its GPU, so compare ratios of rows. Bars: share
of the largest figure of the same model."""


def summaries(sheet: Sheet) -> list[Summary]:
    """The accuracy of the sheet's models; where it is Table 3, the cost of the real ones too."""
    made = [_accuracy(sheet)]
    return [*made, *_cost(sheet)] if sheet.grid == PAPER_TABLE else made


def _accuracy(sheet: Sheet) -> Summary:
    frame = cells_frame(sheet)
    more = telling((entry["cell"] for entry in sheet.cells), *ROW, QUANTIZER)
    more = [*([QUANTIZER] if QUANTIZER in frame else []), *more]
    full = {model: _full(sheet, group) for model, group in frame.groupby(["model", "dataset"], sort=False)}
    rows, strange = [], False
    for (model, label, *values), group in frame.groupby(["model", "method", *more], sort=False, dropna=False):
        dataset = group["dataset"].iloc[0]
        known = any(row["model"] == model for row in paper.rows(PAPER_TABLE)) and dataset == PAPER_DATASET
        strange |= not known
        whole = sheet.methods[label]["source"] == "none"
        images = images_columns(group)
        for bits, cells in [(FULL, group)] if whole else group.groupby("bits", sort=False):
            mean, shown = aggregate(cells, "top1")
            ours = _lost(full[model, dataset], mean)
            own = dict(zip(more, values, strict=True)).get(QUANTIZER, DEFAULT) in (DEFAULT, NOTHING)
            theirs = _paper(model if known else STAND_IN, label, bits) if own else {}
            row = {
                "method": Value(method_title(sheet, label)),
                "bits": Value(bits),
                **{axis: Value(str(value)) for axis, value in zip(more, values, strict=True)},
                "lost": _value(None if whole else ours),
                "paper's lost": _value(None if whole else theirs.get("lost")),
                "top-1": Value(shown, mean),
                "paper's top-1": _value(theirs.get("top1")),
                "model": Value(model_title(model)),
                "logit error (%)": _mean(100 * cells["logit_error"].dropna()),
                "patches": Value(images["patches"]),
                "seconds": Value(images["s per inversion"], _leading(images["s per inversion"])),
            }
            rows.append(row)
    if strange:  # say whose figures these are
        other = {name: f"{name}, {model_title(STAND_IN)}" for name in ("paper's lost", "paper's top-1")}
        rows = [{other.get(name, name): value for name, value in row.items()} for row in rows]
    # figures of other models are no measure for ours: bars of their own
    bars = {"lost": "lost", "paper's lost": "lost", "seconds": "seconds"}
    bars[f"paper's lost, {model_title(STAND_IN)}"] = "paper's lost"
    names = (
        [name for name in rows[0] if name in ("method", "bits", "lost") or not _empty(rows, name)]
        if rows
        else []
    )
    columns = [Column(name, bars.get(name, ""), name.startswith("paper's")) for name in names]
    note = NOTE.replace("\n", " ")
    if strange and any(name.startswith("paper's") for name in names):
        note += " " + OTHER_MODEL.format(model=model_title(STAND_IN)).replace("\n", " ")
    title = "Data-free quantization: accuracy" if sheet.grid == PAPER_TABLE else sheet.title
    return Summary(sheet.grid, title, note, columns, rows)


def _full(sheet: Sheet, group: pd.DataFrame) -> float | None:
    """Top-1 of a model in full precision, where it was measured."""
    own = group[[sheet.methods[label]["source"] == "none" for label in group["method"]]]
    done = own[own["status"] == "done"]
    return None if done.empty else float(done["top1"].iloc[0])


def _lost(full: float | None, mean: float | None) -> float | None:
    return None if full is None or mean is None else full - mean


def _paper(model: str, method: str, bits: str) -> dict[str, float | None]:
    """What the paper reports of a row: top-1, and what was lost against its own full precision."""
    full = paper.figure(PAPER_TABLE, "FP", model=model, method="original")
    top1 = full if bits == FULL else paper.figure(PAPER_TABLE, bits, model=model, method=method)
    return {"top1": top1, "lost": _lost(full, top1)}


def _value(number: float | None) -> Value:
    return Value(NOTHING if number is None else f"{number:.2f}", number)


def _mean(values: pd.Series) -> Value:
    return Value(mean_std(list(values)), float(values.mean())) if len(values) else Value(NOTHING)


def _leading(text: str) -> float | None:
    """The mean at the front of `2.7 ± 0.1 (3)`, or of `7.24 (batch 4, a CPU)`."""
    try:
        return float(text.split()[0])
    except ValueError:
        return None


def _empty(rows: list[dict[str, Value]], name: str) -> bool:
    return all(row[name].shown == NOTHING for row in rows)


def _cost(sheet: Sheet) -> list[Summary]:
    """Of the paper's own models, at every scale; none where the grid has no paper scale."""
    named = {
        "FLOPs (G)": ("FLOPs (G)", "flops"),
        "paper's FLOPs (G)": ("paper FLOPs (G)", "flops"),
        "iterations/s": ("it/s", "speed"),
        "paper's iterations/s": ("paper it/s", "paper's speed"),
    }
    rows = []
    for row in cost_rows(sheet):
        cells = {name: Value(row[name]) for name in ("method", "model", "sparsity")}
        rows.append(
            cells | {name: Value(row[column], _leading(row[column])) for name, (column, _) in named.items()}
        )
    if not rows:
        return []
    columns = [Column(name) for name in ("method", "model", "sparsity")]
    columns += [Column(name, bar, name.startswith("paper's")) for name, (_, bar) in named.items()]
    return [
        Summary(
            "cost_of_inversion",
            "Cost of inverting the paper's models",
            COST_NOTE.replace("\n", " "),
            columns,
            rows,
        )
    ]

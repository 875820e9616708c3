"""The page of four bits: for each model and bit-width, sources of images down and quantizers across.

Differences stand within one quantizer only: another rounds other places, and so makes another model.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.experiments.four_bits import published
from bench.experiments.four_bits.block import Block, blocks
from bench.grid import PAPER_SCALE
from bench.publish import scale_notes, told_apart
from bench.publish.manifest import Sheet
from bench.publish.parts import (
    NOT_RUN,
    NOTHING,
    figure,
    footer,
    markdown,
    mean_std,
    method_title,
)
from bench.publish.words import plain

QUANTIZERS = {
    "psaq": "the paper's (PSAQ-ViT's), every place, min-max",
    "slides": "the formula of the paper's slides, every place, min-max",
    "minmax_inputs": "inputs of matrix products alone, min-max",
    "percentile_inputs": "the same places, a percentile for each end",
    "mse_inputs": "the same places, the shrunk min-max of least squared error",
    "repq": "RepQ-ViT: operands of all matrix products, norms reparameterised, softmax on powers of sqrt 2",
}
METRICS = (
    ("Agreement with full precision (%)", "agreement", 1),
    ("Relative logit error (%)", "logit_error", 100),
)
NOTES = """\
Rows are what the calibration images come from, columns quantizers. W4/A8 is 4-bit weights and 8-bit activations.
Figures are mean ± sample standard deviation over seeds (n) of the images; the model is the same for all seeds.
Agreement is the share of test pictures with the same greatest logit as in full precision; logit error is
‖quantized - full precision‖ / ‖full precision‖ over the logits of all test pictures. "Best data-free" is the row of
noise or inverted images with the greatest mean top-1, chosen on the pictures it is scored on, which flatters it by a
little. Differences are taken between rows of one quantizer, seed by seed, never between quantizers."""
COST_NOTE = """\
Seconds of an inversion are of its optimisation alone; images serve all quantizers and bit-widths. Seconds of a
calibration are of quantizing the model with the images at hand, all bit-widths together. Both are as the sweep took
them, whatever else the machine did: no benchmark."""
PUBLISHED_NOTE = """\
Published figures are ImageNet top-1 (%). "Its own" says that a method quantizes in its own way. Ours and the difference
stand only where images and quantizer are the same."""


def text(sheet: Sheet) -> str:
    """The whole page, markdown."""
    found = blocks(sheet)
    parts = [f"# {plain(sheet.title)}, {scale_notes.named(sheet)}"]
    if sheet.scale != PAPER_SCALE:
        parts.append(scale_notes.disclaimer(sheet))
    parts += ["## Best data-free rows", markdown([row for block in found for row in _summary(block)])]
    parts += [NOTES, _quantizers(found)]
    for block in found:
        parts += _block(block)
    parts += [told_apart.NOTE, *scale_notes.reading(sheet), "## How this was made", footer(sheet)]
    return "\n\n".join(parts) + "\n"


def _summary(block: Block) -> list[dict[str, str]]:
    """The best data-free row of each bit-width and quantizer."""
    rows = []
    for bits in block.bits:
        for quantizer in block.quantizers:
            best = block.best(quantizer, bits)
            rows.append(
                {
                    "model": block.title,
                    "bits": bits,
                    "quantizer": quantizer,
                    "best data-free": NOT_RUN if best is None else method_title(block.sheet, best),
                    "top-1": NOTHING if best is None else block.shown(best, quantizer, bits, "top1"),
                    "less full precision": (
                        NOTHING if best is None else block.less_full_precision(best, quantizer, bits)
                    ),
                }
            )
    return rows


def _quantizers(found: list[Block]) -> str:
    named = dict.fromkeys(name for block in found for name in block.quantizers)
    return "\n".join(f"- `{name}`: {QUANTIZERS.get(name, 'a quantizer of its own')}" for name in named)


def _block(block: Block) -> list[str]:
    full = block.full_precision()
    said = NOT_RUN if full is None else f"{figure(full['metrics']['top1'])}% top-1"
    parts = [f"## {plain(block.title)}", f"Full precision: {said}."]
    for bits in block.bits:
        parts += [f"### {bits}: top-1 (%)", markdown(_rows(block, _shown(block, bits, "top1", 1)))]
        for title, metric, factor in METRICS:
            parts += [f"#### {bits}: {title}", markdown(_rows(block, _shown(block, bits, metric, factor)))]
    for reference in _references(block):
        others = [name for name in block.sources if name != reference]
        title = f"### Top-1 less that of {plain(method_title(block.sheet, reference)).lower()}"
        parts += [
            title,
            markdown([row for bits in block.bits for row in _less(block, bits, others, reference)]),
        ]
    parts += ["### What it costs", markdown(_costs(block)), COST_NOTE]
    if rows := published.rows(block):
        parts += ["### Published figures", markdown(rows), PUBLISHED_NOTE]
    return parts


def _shown(block: Block, bits: str, metric: str, factor: float) -> Callable[[str, str], str]:
    return lambda method, quantizer: block.shown(method, quantizer, bits, metric, factor)


def _rows(block: Block, cell: Callable[[str, str], str]) -> list[dict[str, str]]:
    return [
        {"images": method_title(block.sheet, method)}
        | {name: cell(method, name) for name in block.quantizers}
        for method in block.sources
    ]


def _references(block: Block) -> list[str]:
    """The rows that others are held against: real images, and noise."""
    sources = {name: block.sheet.methods[name]["source"] for name in block.sources}
    return [name for wanted in ("real", "noise") for name in sources if sources[name] == wanted]


def _less(block: Block, bits: str, others: list[str], reference: str) -> list[dict[str, str]]:
    return [
        {"bits": bits, "images": method_title(block.sheet, method)}
        | {name: block.less(method, reference, name, bits) for name in block.quantizers}
        for method in others
    ]


def _costs(block: Block) -> list[dict[str, str]]:
    """Seconds of an inversion, each set of images once, and of a calibration with each quantizer."""
    rows = []
    for method in block.sources:
        made = {record["key"]: record for record in block.done(method, column="images").values()}
        seconds = [r["metrics"]["seconds"] for r in made.values() if "seconds" in r["metrics"]]
        row = {
            "images": method_title(block.sheet, method),
            "s per inversion": mean_std(seconds, 1) if seconds else NOTHING,
        }
        for name in block.quantizers:
            taken = [
                record["metrics"]["calibration_seconds"]
                for record in block.done(method, name).values()
                if "calibration_seconds" in record["metrics"]
            ]
            row[f"{name}: s to calibrate"] = mean_std(taken) if taken else NOTHING
        rows.append(row)
    return rows

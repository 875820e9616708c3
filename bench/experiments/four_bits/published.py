"""What others published (bench/experiments/paper.yaml), each figure with its quantizer, beside ours of the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.experiments import paper
from bench.experiments.builders.quantization import DEFAULT
from bench.experiments.four_bits.block import Block
from bench.publish.parts import NOTHING, difference, figure, method_title

DATASET = "imagenet"  # what the published figures are of
PAPER_TABLE = "table3"
IMAGES = {"noise": "data-free", "inversion": "data-free", "real": "real"}


def rows(block: Block) -> list[dict[str, str]]:
    """A row for each published figure of the block's model and bit-widths; ours and the difference stand only beside
    figures of the same images and the same quantizer."""
    if block.dataset != DATASET:
        return []
    found = []
    for bits in block.bits:
        for row in _figures(block):
            if row["model"] != block.model or bits not in row:
                continue
            ours = _ours(block, row, bits)
            found.append(
                {
                    "bits": bits,
                    "method": row.get("title") or method_title(block.sheet, row["method"]),
                    "images": row.get("images", NOTHING),
                    "quantizer": row["quantizer"],
                    "published": figure(row[bits]),
                    "from": row["what"],
                    "ours": figure(ours),
                    "difference": difference(ours, row[bits]),
                }
            )
    return found


def _figures(block: Block) -> Iterator[dict[str, Any]]:
    """Rows with model, quantizer, what and bit-widths, and a method or a title: the paper's first."""
    for row in paper.rows(PAPER_TABLE):
        source = block.sheet.methods.get(row["method"], {}).get("source")
        if source in IMAGES:
            yield {**row, "quantizer": DEFAULT, "images": IMAGES[source], "what": "the paper, Table 3"}
    yield from (row for row in paper.rows("others") if "quantizer" in row)


def _ours(block: Block, row: dict[str, Any], bits: str) -> float | None:
    if row.get("method") not in block.sources or row["quantizer"] not in block.quantizers:
        return None
    return block.mean(row["method"], row["quantizer"], bits)

"""A small grid of costs, and requests for single measurements, on the digits' model."""

from __future__ import annotations

import smi
from bench import grid
from bench.models import ARCHITECTURES
from bench.tasks.measurement.measure import Request

GRID = """
name: tiny
title: Cost of an iteration
experiment: cost
methods:
  psaq_dense: {title: PSAQ-ViT (dense), source: inversion, recipe: psaq, beside: [reference]}
  deepinversion_sparse:
    title: sparse
    source: inversion
    recipe: deepinversion
    stopping: some
    beside: [reference, smi_dense, reference_dense]
scales:
  digits:
    axes:
      model: [digits_vit]
      resolution: [32]
      method: [psaq_dense, deepinversion_sparse]
      batch: [2]
      precision: [fp32]
    settings:
      repetitions: 3
      warmup: 1
      recipes: {deepinversion: {iterations: 100}, psaq: {iterations: 20, warmup: 2}}
      schedules: {some: {at: [20, 40], drop: 0.5}}
"""


def load(tmp_path, text=GRID):
    path = tmp_path / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    return grid.load(path)


def request_of(**changed) -> Request:
    fields = {
        "model": {"name": "digits_vit", "architecture": ARCHITECTURES["digits_vit"]},
        "resolution": 32,
        "recipe": smi.recipe("deepinversion", iterations=100).to_json(),
        "kept": 16,
        "stages": [None, 32],
        "batch": 2,
        "precision": "fp32",
        "engines": ["smi", "reference", "smi_dense", "reference_dense"],
        "repetitions": 4,
        "warmup": 1,
        "device": "cpu",
        "what": "time",
    }
    return Request(**{**fields, **changed})

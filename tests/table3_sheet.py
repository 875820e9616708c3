"""A published sheet of Table 3 at the paper's scale, made up."""

from pathlib import Path

import yaml_text

from bench.publish.manifest import Sheet

GOLDEN = Path(__file__).parent / "golden" / "table3.md"
GRID = yaml_text.read(Path(__file__).parents[1] / "experiments" / "table3.yaml")


def record(kind, key, metrics=None, cause=None, **more):
    """A record as the store writes it, with made-up figures."""
    return {
        "kind": kind,
        "key": key,
        "status": "done" if cause is None else "failed",
        "metrics": metrics or {},
        "error": None if cause is None else {"cause": cause, "message": "made up"},
        "device": "Made-up Device",
        "device_type": "gpu",
        "commit": "0123456789abcdef",
        "dirty": None,
        "versions": {"python": "3.12.0", "torch": "2.9.0"},
        "finished": "2026-01-02T03:04:05+00:00",
        "seconds": 10.0,
        **more,
    }


def quantized(key, top1, error=0.05):
    return record("quantize", key, {"top1": top1, "logit_error": error, "pictures": 50000})


IMAGES = {"patches": 196, "kept": 46, "sparsity": 1 - 46 / 196, "seconds": 200.0}
TINY = "deit_tiny_patch16_224"


def paper_sheet() -> Sheet:
    """DeiT-Tiny at the paper's scale, with everything that can happen to a cell."""
    records = {
        "teacher-t": record("teacher", "t", {"parameters": 5717416}),
        "evaluate-e": record("evaluate", "e", {"top1": 72.14, "pictures": 50000}),
        "images-n0": record("images", "n0", {"patches": 196, "kept": 196, "sparsity": 0.0}),
        "quantize-n0": quantized("n0", 7.9, 0.5),
        "images-s0": record("images", "s0", IMAGES),
        "images-s1": record("images", "s1", {**IMAGES, "seconds": 220.0}),
        "quantize-s0": quantized("s0", 64.0),
        "quantize-s1": quantized("s1", 65.0, 0.06),
        "quantize-s0b": quantized("s0b", 70.0, 0.02),
        "quantize-s1b": record("quantize", "s1b", cause="out of memory"),
        "images-d0": record("images", "d0", cause="non-finite loss"),
    }
    cells = []
    for bits, end in (("W4/A8", ""), ("W8/A8", "b")):
        for seed in (0, 1):
            where = {"model": TINY, "dataset": "imagenet", "bits": bits, "seed": seed}
            teacher = {"teacher": "teacher-t"}
            cells += [
                {"cell": {**where, "method": "original"}, "tasks": {"evaluate": "evaluate-e", **teacher}},
                {
                    "cell": {**where, "method": "gaussian_noise"},
                    "tasks": {"images": f"images-n{seed}", "quantize": f"quantize-n{seed}{end}", **teacher},
                },
                {"cell": {**where, "method": "real"}, "tasks": {}},
                {
                    "cell": {**where, "method": "deepinversion_dense"},
                    "tasks": {"images": "images-d0", "quantize": f"quantize-d{seed}{end}", **teacher},
                },
                {
                    "cell": {**where, "method": "deepinversion_sparse"},
                    "tasks": {"images": f"images-s{seed}", "quantize": f"quantize-s{seed}{end}", **teacher},
                },
            ]
    spec = GRID["scales"]["paper"]
    return Sheet(
        grid="table3",
        title=GRID["title"],
        experiment="quantization",
        scale="paper",
        table="table3",
        about=spec["about"],
        command="made up",
        methods=GRID["methods"],
        settings=spec["settings"],
        paper={"axes": {**spec["axes"], "model": [TINY]}, "settings": spec["settings"]},
        cells=cells,
        records=records,
    )

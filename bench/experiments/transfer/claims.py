"""What the paper says of knowledge transfer, as claims that Table 4's records are held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.publish.claims import MARGIN, Claim, Measure


def at_first_score(metrics: Mapping[str, Any]) -> float:
    """The student's top-1 where it was first scored after it had begun to learn."""
    return next(entry["top1"] for entry in metrics["curve"] if entry["step"] > 0)


DENSE, SPARSE = "deepinversion_dense", "deepinversion_sparse"
LAST = Measure(
    "transfer", "student's top-1 at the end", "points", lambda metrics: metrics["top1"], margin=MARGIN
)
FIRST = Measure("transfer", "student's top-1 when first scored", "points", at_first_score, margin=MARGIN)

CLAIMS = (
    Claim("Sparse images teach faster than dense ones", "kd", SPARSE, DENSE, (FIRST, LAST)),
    Claim(
        "They teach better than dense images through random patches",
        "kd",
        SPARSE,
        "dense_random_patches",
        (LAST,),
    ),
    Claim(
        "They teach better than noise through random patches", "kd", SPARSE, "noise_random_patches", (LAST,)
    ),
    Claim(
        "Attention chooses better patches to teach with than chance",
        "kd",
        SPARSE,
        "random_selection",
        (LAST,),
    ),
)

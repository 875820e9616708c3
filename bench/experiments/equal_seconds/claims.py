"""What equal seconds of inversion, and not equal numbers of images, say of the methods."""

from __future__ import annotations

from bench.publish.claims import MARGIN, Claim, Measure

GRID = "equal_seconds"
DENSE, SPARSE, REBIRTH = "deepinversion_dense", "deepinversion_sparse", "rebirth4"
LAST = Measure(
    "transfer", "student's top-1 at the end", "points", lambda metrics: metrics["top1"], margin=MARGIN
)

CLAIMS = (
    Claim("Sparse images teach better than dense ones, also at equal seconds", GRID, SPARSE, DENSE, (LAST,)),
    Claim(
        "Rebirth's images teach better than sparse ones, also at equal seconds",
        GRID,
        REBIRTH,
        SPARSE,
        (LAST,),
    ),
    Claim(
        "Attention beats chance in choosing patches to teach with, at either",
        GRID,
        SPARSE,
        "random_selection",
        (LAST,),
    ),
    Claim(
        "Inverted images teach better than noise through random patches, at either",
        GRID,
        SPARSE,
        "noise_random_patches",
        (LAST,),
    ),
)

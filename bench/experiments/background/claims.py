"""The paper's second cause of inefficiency, hallucination in the background, as claims."""

from __future__ import annotations

from bench.publish.claims import Claim, Measure

GRID = "background"
DENSE, SPARSE = "deepinversion_dense", "deepinversion_sparse"
ALONE = Measure(
    "background",
    "probability read in it",
    "points",
    lambda metrics: metrics["background_probability"],
    margin=1.0,
)
OVER_CHANCE = Measure(
    "background",
    "the same less random patches'",
    "points",
    lambda metrics: metrics["background_over_chance"],
    margin=1.0,
)

CLAIMS = (
    Claim("Dense inversion writes the class into the background, sparse less", GRID, DENSE, SPARSE, (ALONE,)),
    Claim(
        "The background of dense images says more of the class than of real ones",
        GRID,
        DENSE,
        "real",
        (ALONE, OVER_CHANCE),
    ),
)

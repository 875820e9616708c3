"""The paper's second cause of inefficiency, hallucination in the background, as claims."""

from __future__ import annotations

from bench.publish.claims import Claim, Measure

GRID = "background"
DENSE, SPARSE = "deepinversion_dense", "deepinversion_sparse"
ALONE = Measure(
    "background",
    "the target's probability from the background alone",
    "points",
    lambda metrics: metrics["background_probability"],
    margin=1.0,
)
OVER_CHANCE = Measure(
    "background",
    "the same, less that from as many random patches",
    "points",
    lambda metrics: metrics["background_over_chance"],
    margin=1.0,
)

CLAIMS = (
    Claim(
        "Dense inversion writes the class into the background; sparse does not", GRID, DENSE, SPARSE, (ALONE,)
    ),
    Claim(
        "What attention leaves out of dense images says more of the class than it does of real ones",
        GRID,
        DENSE,
        "real",
        (ALONE, OVER_CHANCE),
    ),
)

"""What the paper says of calibration, as claims that Table 3's records are held against."""

from __future__ import annotations

from bench.publish.claims import MARGIN, Claim, Measure

ERROR_MARGIN = 1.0  # of the logit error, which is itself a share in %
DENSE, SPARSE = "deepinversion_dense", "deepinversion_sparse"
TOP1 = Measure(
    *("quantize", "top-1", "points", lambda metrics: metrics["top1"]),
    margin=MARGIN,
    damage=lambda metrics: metrics.get("reference_top1", float("inf")) - metrics["top1"],
)
ERROR = Measure(
    *("quantize", "logit error", "%", lambda metrics: 100 * metrics["logit_error"]),
    sign=-1,
    margin=ERROR_MARGIN,
    damage=lambda metrics: 100 * metrics["logit_error"],
)
SECONDS = Measure("images", "seconds of an inversion", "s", lambda metrics: metrics["seconds"], sign=-1)

CLAIMS = (
    Claim("Noise calibrates worse than inverted images", "table3", DENSE, "gaussian_noise", (TOP1, ERROR)),
    Claim("Sparse inversion calibrates as well as dense", "table3", SPARSE, DENSE, (TOP1,), MARGIN),
    Claim("The same of PSAQ-ViT", "table3", "psaq_sparse", "psaq_dense", (TOP1,), MARGIN),
    Claim("Sparse inversion is faster than dense", "table3", SPARSE, DENSE, (SECONDS,)),
    Claim(
        "Attention chooses better patches than chance", "table3", SPARSE, "random_selection", (TOP1, ERROR)
    ),
    Claim(
        "Inversion, not few patches, is what helps: sparse beats noise through as many random patches",
        "table3",
        SPARSE,
        "noise_random_patches",
        (TOP1, ERROR),
    ),
)

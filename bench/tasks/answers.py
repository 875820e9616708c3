"""Which pictures of a test split were answered right: one bit each, packed, as a record keeps them.

Shapes: N pictures, in the split's order.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

FIELD = "right"  # of the metrics of "evaluate" and "quantize"; records made before it was kept lack it


def pack(right: np.ndarray) -> str:
    """bool [N] as text: base64 of its bits, the first picture's the highest of the first byte."""
    return base64.b64encode(np.packbits(np.asarray(right, dtype=bool)).tobytes()).decode("ascii")


def unpack(metrics: Mapping[str, Any]) -> np.ndarray | None:
    """bool [N] of a record's metrics; None where they do not say, or not of as many pictures as were scored."""
    text, count = metrics.get(FIELD), metrics.get("pictures")
    if not isinstance(text, str) or not isinstance(count, int):
        return None
    try:
        bits = np.unpackbits(np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8))
    except ValueError:
        return None
    whole = len(bits) == -(-count // 8) * 8
    return bits[:count].astype(bool) if whole else None

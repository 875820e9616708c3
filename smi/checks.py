"""What counts as a number in settings: never a bool, never infinite."""

from __future__ import annotations

import math
import numbers
from typing import Any

from smi.errors import InvalidSetting


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def whole_seed(seed: Any) -> int:
    """The seed as an int, numpy's whole numbers too; InvalidSetting for anything else."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise InvalidSetting(f"seed is {seed!r}; allowed: a whole number")
    return int(seed)

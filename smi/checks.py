"""What counts as a number in settings: never a bool, never infinite."""

from __future__ import annotations

import math
import numbers
from typing import Any

from smi.errors import InvalidSetting


def is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def plain(value: Any) -> Any:
    """Python's own number for numpy's (or a tensor of one), a tuple of such for a list, range, array or tensor;
    anything else as it is. What settings hold is compared, and written as JSON."""
    if isinstance(value, (bool, str)):
        return value
    if hasattr(value, "tolist"):  # an array or tensor, or one number of theirs
        value = value.tolist()
    if isinstance(value, (list, tuple, range)):
        return tuple(plain(entry) for entry in value)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else value


def whole_seed(seed: Any) -> int:
    """The seed as an int, numpy's whole numbers too; InvalidSetting for anything else."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise InvalidSetting(f"seed is {seed!r}; allowed: a whole number")
    return int(seed)

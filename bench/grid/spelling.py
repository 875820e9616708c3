"""One spelling for equal numbers: a task is named by its settings as JSON, where 1 and 1.0 differ."""

from __future__ import annotations

from typing import Any


def one_spelling(value: Any, like: Any = None) -> Any:
    """`value` spelt as `like` where they are equal, else whole numbers as ints, in lists and mappings too."""
    if isinstance(value, bool):
        return value
    if isinstance(value, dict):
        known = like if isinstance(like, dict) else {}
        return {key: one_spelling(inner, known.get(key)) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        known = like if isinstance(like, (list, tuple)) and len(like) == len(value) else [None] * len(value)
        return [one_spelling(inner, of) for inner, of in zip(value, known, strict=True)]
    number = isinstance(value, (int, float)) and isinstance(like, (int, float)) and not isinstance(like, bool)
    if number and value == like:
        return like
    return int(value) if isinstance(value, float) and value.is_integer() else value

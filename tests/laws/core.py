"""What a law is: a check of one drawn case through the public API, registered under the name that says what holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st

seeds = st.integers(0, 2**31)


@dataclass(frozen=True)
class Law:
    """examples: how many cases a test draws."""

    check: Callable[[Any], None]
    cases: st.SearchStrategy
    examples: int = 50


LAWS: dict[str, Law] = {}


def law(cases: st.SearchStrategy, examples: int = 50):
    """Register a check under its name."""

    def register(check):
        LAWS[check.__name__] = Law(check, cases, examples)
        return check

    return register


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal bits and dtype."""
    return one.dtype == other.dtype and torch.equal(one, other)


@dataclass(frozen=True)
class Fault:
    """In `owner.name`, write `new` for `old`; `law` is the one that must notice."""

    what: str
    owner: object
    name: str
    old: str
    new: str
    law: str

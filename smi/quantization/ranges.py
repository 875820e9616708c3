"""Which range of values a quantizer covers: functions of the values, and of the error that a range would make.

Each takes rows float32 [C, n] (C channels, or 1 for a whole tensor) and `error(low [C], high [C]) -> [C]`, the mean
squared error of the rows quantized in that range, and gives (low [C], high [C]).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor

from smi.quantizers import Error, RangeOf

RANGES: Mapping[str, str] = {
    "minmax": "the least and the greatest value",
    "percentile": "the quantiles 1 - p and p, linearly interpolated",
    "least_error": "the candidate with the least mean squared error: of the percentiles given (RepQ-ViT), else of the "
    "least and greatest value shrunk by factors from 1 to .2",
}
SHRINKS = tuple(1 - 0.05 * step for step in range(17))


def range_of(kind: str, percentiles: tuple[float, ...] = ()) -> RangeOf | None:
    """The function for a kind of RANGES; None for min-max, which need not hold on to the values."""
    if kind == "minmax":
        return None
    if kind == "percentile":
        return partial(_percentile, p=percentiles[0])
    return (
        partial(_least_error_of_percentiles, percentiles=percentiles)
        if percentiles
        else _least_error_of_shrinks
    )


def quantiles(rows: Tensor, percentiles: Iterable[float]) -> list[tuple[Tensor, Tensor]]:
    """(quantile 1 - p, quantile p), each [C], of rows [C, n] for every p above .5, linearly interpolated.

    To the bit as torch.quantile, which refuses more than 16 million values; only the tails are sorted.
    """
    last = rows.shape[1] - 1
    shares = [tuple(torch.tensor([1 - p, p], dtype=torch.float32).tolist()) for p in percentiles]
    depth = 1 + max(max(math.ceil(low * last), last - math.floor(high * last)) for low, high in shares)
    depth = min(depth, last + 1)
    lower = rows.topk(depth, dim=1, largest=False).values  # ranks 0 to depth - 1
    upper = rows.topk(depth, dim=1).values.flip(1)  # ranks last - depth + 1 to last
    first = last + 1 - depth
    return [(_at(lower, low * last), _at(upper, high * last - first)) for low, high in shares]


def _at(values: Tensor, rank: float) -> Tensor:
    before = math.floor(rank)
    return torch.lerp(values[:, before], values[:, math.ceil(rank)], rank - before)


def _percentile(rows: Tensor, error: Error, p: float) -> tuple[Tensor, Tensor]:
    return quantiles(rows, [p])[0]


def _least_error_of_percentiles(
    rows: Tensor, error: Error, percentiles: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    return _least_error(quantiles(rows, percentiles), error)


def _least_error_of_shrinks(rows: Tensor, error: Error) -> tuple[Tensor, Tensor]:
    low, high = rows.aminmax(dim=1)
    return _least_error([(low * factor, high * factor) for factor in SHRINKS], error)


def _least_error(candidates: list[tuple[Tensor, Tensor]], error: Error) -> tuple[Tensor, Tensor]:
    """Channel by channel the candidate with the least error, the first of equals."""
    low, high = candidates[0]
    least = error(low, high)
    for other_low, other_high in candidates[1:]:
        other = error(other_low, other_high)
        better = other < least
        low, high = torch.where(better, other_low, low), torch.where(better, other_high, high)
        least = torch.where(better, other, least)
    return low, high

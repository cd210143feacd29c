"""Histograms with fixed bins, which need no baseline and can be added up: latencies and predictions.

A histogram is a mapping from the number of a bin to a count; bins without values are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

Counts = Mapping[int, int]
"""Bin -> count."""
Scale = Literal["log", "unit", "class"]
"""The bins of predictions: `unit` for probabilities, 100 equal bins from 0 to 1; `log` for all other numbers;
`class` for class labels, by their place in the manifest."""

LATENCY_BINS_PER_DOUBLING = 4
LATENCY_BINS = 84
"""Bin 0 is up to 1 ms, each further one to 2**0.25 times the one before; the last is everything above 25 minutes."""
LOG_BINS_PER_DOUBLING = 8
LOG_LEAST_EXPONENT = -64
"""Numbers below 2**-64 are counted as 0."""
LOG_BINS = (1024 - LOG_LEAST_EXPONENT) * LOG_BINS_PER_DOUBLING
"""Of positive numbers: bins 1 to `LOG_BINS`; negative numbers have the negative bins, and 0 is bin 0."""
UNIT_BINS = 100


def latency_bin(ms: float) -> int:
    """The bin of a latency."""
    if ms <= 1:
        return 0
    return min(LATENCY_BINS - 1, math.ceil(math.log2(ms) * LATENCY_BINS_PER_DOUBLING))


def latency_bound_ms(number: int) -> float:
    """The largest latency in a bin, in milliseconds."""
    return float(2.0 ** (number / LATENCY_BINS_PER_DOUBLING))


def latency_quantile_ms(counts: Counts, quantile: float) -> float | None:
    """An upper bound of a quantile (0 to 1), at most 19 % too large from 4 ms on; None without counts."""
    total = sum(counts.values())
    if not total:
        return None
    left = quantile * total
    for number in sorted(counts):
        left -= counts[number]
        if left <= 0:
            return latency_bound_ms(number)
    return latency_bound_ms(max(counts))


def added(first: Counts, second: Counts) -> dict[int, int]:
    """The sum of two histograms with the same bins, in the order of the bins."""
    return {bin: first.get(bin, 0) + second.get(bin, 0) for bin in sorted({*first, *second})}  # noqa: A001

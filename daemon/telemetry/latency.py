"""Quantiles of histograms, and differences between histograms."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from inferd.streams.telemetry import LatencySnapshot


class LatencyQuantiles(msgspec.Struct, frozen=True):
    """Estimates in milliseconds; None without observations."""

    count: int
    mean_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None


def quantiles(histogram: LatencySnapshot) -> LatencyQuantiles:
    """Estimates with linear interpolation within a bucket; at most the last bound."""
    count = sum(histogram.counts)
    estimates = [_milliseconds(_quantile(histogram, count, q)) for q in (0.5, 0.9, 0.99)]
    mean = _milliseconds(histogram.total_s / count) if count else None
    return LatencyQuantiles(count, mean, *estimates)


def since(earlier: LatencySnapshot | None, later: LatencySnapshot) -> LatencySnapshot:
    """Observations between two snapshots; all of `later` if it does not continue `earlier` (a restart)."""
    if earlier is None or earlier.bounds != later.bounds:
        return later
    counts = tuple(b - a for a, b in zip(earlier.counts, later.counts, strict=True))
    if min(counts) < 0:
        return later
    return LatencySnapshot(later.bounds, counts, max(later.total_s - earlier.total_s, 0.0))


def cumulative(counts: Sequence[int]) -> list[int]:
    """Observations up to and including each bucket."""
    total, sums = 0, []
    for count in counts:
        total += count
        sums.append(total)
    return sums


def _quantile(histogram: LatencySnapshot, count: int, q: float) -> float | None:
    if count == 0:
        return None
    rank, below, lower = q * count, 0, 0.0
    for bound, bucket in zip(histogram.bounds, histogram.counts, strict=False):
        if below + bucket >= rank:
            return lower + (bound - lower) * (rank - below) / bucket
        below, lower = below + bucket, bound
    return lower


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1_000, 3)

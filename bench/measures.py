"""The arithmetic of the measurements: spans, rates, quantiles, ratios. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SUSTAINED_SHARE_MIN = 0.95
"""For constant lag, at least this share of the requests of the second half must have results in it."""

Floats = NDArray[np.float64]


class CpuSample(NamedTuple):
    """CPU seconds used up to a Unix time."""

    at_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Span:
    """The measured part of a backlog: after the first `warm` results, up to the last one."""

    begin_s: float
    end_s: float
    messages: int

    @property
    def duration_s(self) -> float:
        return self.end_s - self.begin_s

    @property
    def messages_per_s(self) -> float:
        return self.messages / self.duration_s


def timed_span(timestamps_ms: Sequence[int], warm: int) -> Span:
    """The span after the first `warm` results; timestamps are the broker's, in any order, Unix milliseconds.

    Results that were appended in the same millisecond as the last warm one do not belong to the span.
    Raises ValueError if no results are left.
    """
    moments = np.sort(np.asarray(timestamps_ms, dtype=np.int64))
    begin = moments[max(0, warm - 1)] if warm < moments.size else None
    after = int((moments > begin).sum()) if begin is not None else 0
    if begin is None or not after:
        raise ValueError(f"{moments.size} results, {warm} of them warm-up: nothing is left to time")
    return Span(float(begin) / 1e3, float(moments[-1]) / 1e3, after)


def cpu_between(samples: Sequence[CpuSample], begin_s: float, end_s: float) -> float:
    """CPU seconds used between two times, interpolated between samples."""
    moments = [sample.at_s for sample in samples]
    used = [sample.cpu_s for sample in samples]
    begin, end = np.interp([begin_s, end_s], moments, used)
    return float(end - begin)


class Spread(NamedTuple):
    """Median and range of repeats."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median, minimum and maximum of one or more values."""
    return Spread(float(np.median(values)), float(min(values)), float(max(values)))


def paired_ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """The spread of ours / theirs by repeat; disturbances of a whole repeat cancel out."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Quantiles of latencies, in milliseconds."""

    p50: float
    p99: float
    p999: float
    max: float
    count: int


def latency_quantiles(latencies_ms: Floats) -> Quantiles:
    """Quantiles as observed values: the smallest latency that at least this share of observations does not exceed."""
    p50, p99, p999, greatest = np.quantile(latencies_ms, [0.5, 0.99, 0.999, 1.0], method="inverted_cdf").tolist()
    return Quantiles(p50, p99, p999, greatest, latencies_ms.size)


def scheduled_s(count: int, rate: float, begin_s: float) -> Floats:
    """The schedule of an open-loop generator for `count` messages at `rate` per second."""
    return begin_s + np.arange(count) / rate


def is_sustained(scheduled: Floats, received: Floats) -> bool:
    """Whether the lag is constant: in the second half, results keep up with requests.

    Both arrays are float64 seconds of one clock; `received[i]` is the result of the message scheduled at
    `scheduled[i]`, NaN if there is none.
    """
    if not np.isfinite(received).all():
        return False
    middle, end = scheduled[scheduled.size // 2], scheduled[-1]
    offered = ((scheduled > middle) & (scheduled <= end)).sum()
    came = ((received > middle) & (received <= end)).sum()
    return bool(came >= SUSTAINED_SHARE_MIN * offered)


def next_step(passed: int, failed: int) -> int | None:
    """The next step of a bisection between the highest passed and the lowest failed step; None if it has ended."""
    return (passed + failed) // 2 if failed - passed > 1 else None

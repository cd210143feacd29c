"""Counters and histograms of the streams: plain numbers that a snapshot reads; nothing is computed for a scrape."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

import numpy as np

from schemas.models import Manifest
from streams.effects import Tally
from streams.snapshot import LatencySnapshot, Step, TenantSnapshot

if TYPE_CHECKING:
    from streams.tracing import Tracing

LATENCY_BOUNDS_S = (
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.02,
    0.03,
    0.05,
    0.075,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
    60.0,
)
STEP_BOUNDS_S = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, *LATENCY_BOUNDS_S)
"""A step of a small micro-batch takes microseconds."""
STEPS: tuple[Step, ...] = get_args(Step)


class LatencyHistogram:
    """Observations in seconds, counted by bounds, which are seconds too."""

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BOUNDS_S) -> None:
        self._bounds = bounds
        # A list: adding one to an element of an array takes several times as long.
        self._counts = [0] * (len(bounds) + 1)
        self._bounds_ms = np.array(bounds) * 1000
        self._total_s = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._total_s += seconds

    def observe_since(self, timestamps_ms: Sequence[int], now_ms: float) -> float:
        """One observation a timestamp; clocks that run ahead, and records without a timestamp, count as zero.

        Gives the longest, in seconds.
        """
        stamps = np.array(timestamps_ms, dtype=np.float64)
        waits = np.where(stamps > 0, np.maximum(now_ms - stamps, 0.0), 0.0)
        new = np.bincount(self._bounds_ms.searchsorted(waits), minlength=len(self._counts)).tolist()
        self._counts = [count + more for count, more in zip(self._counts, new, strict=True)]
        self._total_s += float(waits.sum()) / 1000
        return float(waits.max(initial=0.0)) / 1000

    def snapshot(self) -> LatencySnapshot:
        return LatencySnapshot(self._bounds, tuple(self._counts), self._total_s)


class Laps:
    """When each step of one micro-batch began and ended, on the clock that measures durations, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.steps: list[tuple[Step, float, float]] = []
        self._clock = clock
        self.began = self.ended = clock()

    def lap(self, step: Step) -> None:
        """`step` took from the end of the one before until now."""
        now = self._clock()
        self.steps.append((step, self.ended, now))
        self.ended = now


@dataclass(slots=True)
class TenantCounters:
    """What happened to the requests of one tenant since the start."""

    tenant: str
    requests_in: int = 0
    results: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    dead_letters: int = 0
    bytes_out: int = 0
    direct: int = 0

    def add(self, tally: Tally) -> None:
        """Adds what a range of records came to."""
        self.results += tally.results
        self.errors.update(tally.errors)
        self.dead_letters += tally.dead_letters
        self.bytes_out += tally.bytes_out

    def snapshot(self, pending: int) -> TenantSnapshot:
        """`pending`: records that its partitions hold."""
        return TenantSnapshot(
            tenant=self.tenant,
            requests_in=self.requests_in,
            results=self.results,
            errors=dict(self.errors),
            dead_letters=self.dead_letters,
            pending=pending,
            bytes_out=self.bytes_out,
            direct=self.direct,
        )


@dataclass(slots=True)
class ModelCounters:
    """What one model version was asked since the start."""

    requests: int = 0
    rows: int = 0
    scored_rows: int = 0
    """Rows that the model was called for: not those that the cache had, and equal ones of a micro-batch once."""
    predict_s: float = 0.0


@dataclass(slots=True)
class JobCounters:
    """What became of the jobs of one tenant that are owned here, since the start."""

    rows_in: int = 0
    rows_succeeded: int = 0
    rows_failed: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    """By status."""

    def add(self, other: JobCounters) -> None:
        """Adds what a range of records came to."""
        self.rows_in += other.rows_in
        self.rows_succeeded += other.rows_succeeded
        self.rows_failed += other.rows_failed
        self.ended.update(other.ended)


@dataclass(slots=True)
class ChunkCounters:
    """Chunks of one tenant's jobs that were scored here since the start."""

    chunks: int = 0
    rows: int = 0
    seconds: float = 0.0


class LaneMeasures:
    """What the lane as a whole did."""

    def __init__(self, tracing: Tracing | None = None) -> None:
        """`tracing`: what makes spans; None for none."""
        self.tracing = tracing
        self.queue = LatencyHistogram()
        self.infer = LatencyHistogram()
        self.end_to_end = LatencyHistogram()
        self.direct = LatencyHistogram()
        self.steps: dict[Step, LatencyHistogram] = {step: LatencyHistogram(STEP_BOUNDS_S) for step in STEPS}
        self.batches = 0
        self.batch_rows_last = 0
        self.commits = 0
        self.commit_failures = 0
        self.records_missing = 0
        """Offsets that retention or deletion took away before they were read."""
        self.by_model: dict[tuple[str, str, int], ModelCounters] = {}
        """By tenant, model id and version."""

    def observe_step(self, step: Step, seconds: float) -> None:
        """Adds one observation of a step."""
        self.steps[step].observe(seconds)

    def observe_step_since(self, step: Step, timestamps_ms: Sequence[int], now_ms: float) -> None:
        """Adds one observation a timestamp."""
        self.steps[step].observe_since(timestamps_ms, now_ms)

    def observe_laps(self, laps: Laps) -> None:
        """Adds the steps of a micro-batch."""
        for step, began, ended in laps.steps:
            self.steps[step].observe(ended - began)

    def count_models(self, tenant: str, by_model: Mapping[tuple[str, int], tuple[int, int]]) -> None:
        """Adds the (requests, rows) that each (model id, version) of a tenant answered."""
        for (model_id, version), (requests, rows) in by_model.items():
            counters = self._model(tenant, model_id, version)
            counters.requests += requests
            counters.rows += rows

    def count_prediction(self, tenant: str, manifest: Manifest, seconds: float, rows: int = 0) -> None:
        """Adds the time that one call of a model took for so many rows."""
        counters = self._model(tenant, manifest.model_id, manifest.version)
        counters.predict_s += seconds
        counters.scored_rows += rows

    def _model(self, tenant: str, model_id: str, version: int) -> ModelCounters:
        return self.by_model.setdefault((tenant, model_id, version), ModelCounters())

"""Measurements of the lane: plain numbers, which a snapshot copies."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np

from inferd.schemas.models import Manifest
from inferd.streams.telemetry.counters import ModelCounters
from inferd.streams.telemetry.snapshot import LatencySnapshot, Step
from inferd.streams.telemetry.step_timer import StepTimer
from inferd.streams.telemetry.tracing import Tracing

WAIT_MS_MAX = 3_600_000
"""Maximum waiting time of a record that is counted."""
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
"""Steps of small micro-batches take microseconds."""
STEPS: tuple[Step, ...] = get_args(Step)
FEW = 8
"""Up to this many observations, a loop takes less time than numpy."""


class LatencyHistogram:
    """A histogram of seconds."""

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BOUNDS_S) -> None:
        self._bounds = bounds
        # A list: incrementing an element of an array takes several times as long.
        self._counts = [0] * (len(bounds) + 1)
        self._bounds_ms = np.array(bounds) * 1000
        self._total_s = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._total_s += seconds

    def observe_since(self, timestamps_ms: Sequence[int], now_ms: float) -> float:
        """Adds one observation per timestamp; returns the longest in seconds.

        Future and missing timestamps count as zero. The maximum is `WAIT_MS_MAX`, so that a single wrong timestamp does
        not dominate the mean.
        """
        if len(timestamps_ms) <= FEW:
            return self._observe_few(timestamps_ms, now_ms)
        stamps = np.array(timestamps_ms, dtype=np.float64)
        waits = np.where(stamps > 0, np.clip(now_ms - stamps, 0.0, WAIT_MS_MAX), 0.0)
        new = np.bincount(self._bounds_ms.searchsorted(waits), minlength=len(self._counts)).tolist()
        self._counts = [count + more for count, more in zip(self._counts, new, strict=True)]
        self._total_s += float(waits.sum()) / 1000
        return float(waits.max(initial=0.0)) / 1000

    def _observe_few(self, timestamps_ms: Sequence[int], now_ms: float) -> float:
        longest_s = 0.0
        for stamp in timestamps_ms:
            wait_s = min(max(now_ms - stamp, 0.0), WAIT_MS_MAX) / 1000 if stamp > 0 else 0.0
            longest_s = max(longest_s, wait_s)
            self.observe(wait_s)
        return longest_s

    def snapshot(self) -> LatencySnapshot:
        return LatencySnapshot(self._bounds, tuple(self._counts), self._total_s)


class LaneMeasures:
    """Measurements of the lane as a whole."""

    def __init__(self, tracing: Tracing | None = None) -> None:
        """`tracing`: creates spans; None without tracing."""
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
        """Offsets deleted by retention before they were read."""
        self.by_model: dict[tuple[str, str, int], ModelCounters] = {}
        """By tenant, model id and version."""

    def observe_step(self, step: Step, seconds: float) -> None:
        """Adds one observation of a step."""
        self.steps[step].observe(seconds)

    def observe_step_since(self, step: Step, timestamps_ms: Sequence[int], now_ms: float) -> None:
        """Adds one observation per timestamp."""
        self.steps[step].observe_since(timestamps_ms, now_ms)

    def observe_steps(self, step_timer: StepTimer) -> None:
        """Adds the steps of a micro-batch."""
        for step, began, ended in step_timer.steps:
            self.steps[step].observe(ended - began)

    def count_models(self, tenant: str, by_model: Mapping[tuple[str, int], tuple[int, int]]) -> None:
        """Adds the requests and rows that each (model id, version) of a tenant answered."""
        for (model_id, version), (requests, rows) in by_model.items():
            counters = self._model(tenant, model_id, version)
            counters.requests += requests
            counters.rows += rows

    def count_prediction(self, tenant: str, manifest: Manifest, seconds: float, rows: int = 0) -> None:
        """Adds the duration of one call of a model."""
        counters = self._model(tenant, manifest.model_id, manifest.version)
        counters.predict_s += seconds
        counters.scored_rows += rows

    def _model(self, tenant: str, model_id: str, version: int) -> ModelCounters:
        return self.by_model.setdefault((tenant, model_id, version), ModelCounters())

"""Counters and histograms of the streams: plain numbers that a snapshot reads; nothing is computed for a scrape."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from schemas.models import Manifest
from streams.effects import Tally
from streams.snapshot import LatencySnapshot, TenantSnapshot

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


class LatencyHistogram:
    """Observations in seconds, counted by `LATENCY_BOUNDS_S`."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(LATENCY_BOUNDS_S) + 1, dtype=np.int64)
        self._bounds_ms = np.array(LATENCY_BOUNDS_S) * 1000
        self._total_s = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self._total_s += seconds

    def observe_since(self, timestamps_ms: Sequence[int], now_ms: float) -> None:
        """One observation a timestamp; clocks that run ahead, and records without a timestamp, count as zero."""
        stamps = np.array(timestamps_ms, dtype=np.float64)
        waits = np.where(stamps > 0, np.maximum(now_ms - stamps, 0.0), 0.0)
        self._counts += np.bincount(self._bounds_ms.searchsorted(waits), minlength=len(self._counts))
        self._total_s += float(waits.sum()) / 1000

    def snapshot(self) -> LatencySnapshot:
        return LatencySnapshot(LATENCY_BOUNDS_S, tuple(self._counts.tolist()), self._total_s)


@dataclass(slots=True)
class TenantCounters:
    """What happened to the requests of one tenant since the start."""

    tenant: str
    requests_in: int = 0
    results: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    dead_letters: int = 0
    bytes_out: int = 0

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
        )


@dataclass(slots=True)
class ModelCounters:
    """What one model version was asked since the start."""

    requests: int = 0
    rows: int = 0
    predict_s: float = 0.0


class LaneMeasures:
    """What the lane as a whole did."""

    def __init__(self) -> None:
        self.queue = LatencyHistogram()
        self.infer = LatencyHistogram()
        self.end_to_end = LatencyHistogram()
        self.batches = 0
        self.batch_rows_last = 0
        self.commits = 0
        self.commit_failures = 0
        self.chunks = self.chunk_rows = 0
        """Chunks of jobs that were scored, and their rows."""
        self.chunk_s = 0.0
        self.records_missing = 0
        """Offsets that retention or deletion took away before they were read."""
        self.by_model: dict[tuple[str, str, int], ModelCounters] = {}
        """By tenant, model id and version."""

    def count_models(self, tenant: str, by_model: Mapping[tuple[str, int], tuple[int, int]]) -> None:
        """Adds the (requests, rows) that each (model id, version) of a tenant answered."""
        for (model_id, version), (requests, rows) in by_model.items():
            counters = self._model(tenant, model_id, version)
            counters.requests += requests
            counters.rows += rows

    def count_prediction(self, tenant: str, manifest: Manifest, seconds: float) -> None:
        """Adds the time that one call of a model took."""
        self._model(tenant, manifest.model_id, manifest.version).predict_s += seconds

    def _model(self, tenant: str, model_id: str, version: int) -> ModelCounters:
        return self.by_model.setdefault((tenant, model_id, version), ModelCounters())

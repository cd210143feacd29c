"""What the worker did in the last hour: a bounded ring of samples, so that charts do not start empty."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from inferd.daemon.telemetry.latency import quantiles, since
from inferd.streams.telemetry import StreamsSnapshot

STEP_S = 5
"""Seconds between two samples. Samples lie at multiples of it, so that those of several workers can be added up."""
SAMPLES_MAX = 720


class Sample(msgspec.Struct, frozen=True):
    """Rates over the `STEP_S` seconds before `at`, and state at that time."""

    at: int
    """Unix time in seconds; a multiple of `STEP_S`."""
    requests_per_s: float
    rows_per_s: float
    errors_per_s: float
    lag: int | None
    """None if it is not known."""
    p50_ms: float | None = None
    """Latency of requests over Kafka, from their timestamp to the acknowledgement of the result; None without any."""
    p99_ms: float | None = None
    http_p50_ms: float | None = None
    http_p99_ms: float | None = None
    resident_bytes: int | None = None


class History(msgspec.Struct, frozen=True):
    """Samples of one worker, oldest first."""

    step_s: int
    samples: list[Sample]


@dataclass(frozen=True, slots=True)
class _Work:
    """Counters of one tenant since the start of the worker."""

    requests: int
    rows: int
    errors: int
    lag: int | None


@dataclass(frozen=True, slots=True)
class _Counted:
    """The counters at one time."""

    at: int
    time: float
    snapshot: StreamsSnapshot
    work: dict[str, _Work]


@dataclass(frozen=True, slots=True)
class _Kept:
    whole: Sample
    of_tenants: dict[str, Sample]


class SampleRing:
    """Samples of a worker and of each of its tenants. Call `observe` at least once in `STEP_S`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock`: Unix time in seconds."""
        self._clock = clock
        self._ring: deque[_Kept] = deque(maxlen=SAMPLES_MAX)
        self._before: _Counted | None = None

    def clear(self) -> None:
        """Starts counting anew, with other streams; keeps the samples."""
        self._before = None

    def observe(self, snapshot: StreamsSnapshot, resident_bytes: int | None) -> None:
        """Adds a sample once in `STEP_S`."""
        now = self._clock()
        at = int(now) // STEP_S * STEP_S
        before = self._before
        if before is not None and at == before.at:
            return
        counted = self._before = _Counted(at, now, snapshot, _work_of(snapshot))
        if before is not None and now > before.time:  # else the clock was set back
            self._ring.append(_sample(before, counted, resident_bytes))

    def history(self, tenant: str | None = None, after: int = 0) -> History:
        """Samples later than `after` (Unix seconds): of the worker, or of one tenant, without latency and memory."""
        kept = (each for each in self._ring if each.whole.at > after)
        found = (each.whole if tenant is None else each.of_tenants.get(tenant) for each in kept)
        return History(STEP_S, [sample for sample in found if sample is not None])


def _sample(before: _Counted, now: _Counted, resident_bytes: int | None) -> _Kept:
    at, seconds = now.at, now.time - before.time
    of_tenants = {name: _rates(at, seconds, before.work.get(name), work) for name, work in now.work.items()}
    whole = _rates(at, seconds, _total(before.work.values()), _total(now.work.values()))
    kafka = quantiles(since(before.snapshot.end_to_end, now.snapshot.end_to_end))
    http = quantiles(since(before.snapshot.direct, now.snapshot.direct))
    latencies = {"p50_ms": kafka.p50_ms, "p99_ms": kafka.p99_ms, "http_p50_ms": http.p50_ms, "http_p99_ms": http.p99_ms}
    return _Kept(msgspec.structs.replace(whole, **latencies, resident_bytes=resident_bytes), of_tenants)


def _rates(at: int, seconds: float, before: _Work | None, now: _Work) -> Sample:
    first = before or _Work(0, 0, 0, None)

    def rate(earlier: int, later: int) -> float:
        return round(max(later - earlier, 0) / seconds, 2)

    return Sample(
        at, rate(first.requests, now.requests), rate(first.rows, now.rows), rate(first.errors, now.errors), now.lag
    )


def _work_of(snapshot: StreamsSnapshot) -> dict[str, _Work]:
    rows: dict[str, int] = {}
    for model in snapshot.models:
        rows[model.tenant] = rows.get(model.tenant, 0) + model.rows
    lags: dict[str, int] = {}
    for partition in snapshot.partitions:
        if partition.lag is not None and not partition.lifecycle:
            lags[partition.tenant] = lags.get(partition.tenant, 0) + partition.lag
    return {
        each.tenant: _Work(each.requests_in, rows.get(each.tenant, 0), sum(each.errors.values()), lags.get(each.tenant))
        for each in snapshot.tenants
    }


def _total(works: Iterable[_Work]) -> _Work:
    found = list(works)
    lags = [work.lag for work in found if work.lag is not None]
    return _Work(
        sum(work.requests for work in found),
        sum(work.rows for work in found),
        sum(work.errors for work in found),
        sum(lags) if lags else None,
    )

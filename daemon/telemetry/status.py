"""The state of the worker: the source of `/status`, `/readyz`, `/history` and `/metrics`."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from inferd.daemon.settings import Settings
from inferd.daemon.telemetry.history import SampleRing
from inferd.daemon.telemetry.latency import LatencyQuantiles, quantiles, since
from inferd.daemon.version import inferd_version
from inferd.streams.inference import FormatReport
from inferd.streams.telemetry import (
    AliasSnapshot,
    CacheSnapshot,
    DanglingAlias,
    DriftSnapshot,
    JobsSnapshot,
    LatencySnapshot,
    ModelMemorySnapshot,
    ModelSnapshot,
    PartitionSnapshot,
    PauseSnapshot,
    QuotaSnapshot,
    RolloutsSnapshot,
    RouteSnapshot,
    ShadowSnapshot,
    StreamsSnapshot,
    TenantSnapshot,
    WaitSnapshot,
)

Stage = Literal["starting", "waiting", "running", "draining", "stopped"]
WINDOW_S = 10.0
SAMPLE_EVERY_S = 0.9
SAMPLES_MAX = 12
LATENCIES = ("queue", "infer", "end_to_end", "direct", "model_wait")
COPIED = (
    "generation",
    "rebalances",
    "tenants",
    "partitions",
    "models",
    "aliases",
    "dangling_aliases",
    "pauses",
    "quotas",
    "model_memory",
    "batches",
    "batch_rows_last",
    "queued_bytes",
    "in_flight_bytes",
    "commits",
    "commit_failures",
    "records_missing",
    "cache",
    "jobs",
    "routes",
    "shadows",
    "drift",
    "rollouts",
    "restoring",
    "restored_records",
    "last_error",
    "waiting",
)
"""Fields that are copied from a snapshot to the status."""


class SnapshotSource(Protocol):
    """The source of snapshots: the streams."""

    def snapshot(self) -> StreamsSnapshot:
        """The current state of the streams."""


class TrafficSource(Protocol):
    """Counters of the HTTP server."""

    @property
    def responses(self) -> Mapping[tuple[str, str, str], int]:
        """Number of responses by method, route and status."""

    def latencies(self) -> Mapping[str, LatencySnapshot]:
        """Request durations by route."""


class Throughput(msgspec.Struct, frozen=True):
    """Rates over the last `window_s` seconds."""

    window_s: float
    requests_per_s: float
    rows_per_s: float
    results_per_s: float
    errors_per_s: float


class Latency(msgspec.Struct, frozen=True):
    """Latency over the last `WINDOW_S` seconds, and since the start."""

    recent: LatencyQuantiles
    since_start: LatencyQuantiles


class Memory(msgspec.Struct, frozen=True):
    """Resident memory of the process in bytes; None if the platform does not report it."""

    resident_bytes: int | None
    peak_bytes: int


class Status(msgspec.Struct, frozen=True):
    """The response of `/status`. Fields of the streams are empty until the streams have been started."""

    worker: str
    version: str
    started_at: str
    uptime_s: float
    ready: bool
    unready: tuple[str, ...]
    phase: str
    phase_for_s: float
    broker: str
    namespace: str
    group_id: str
    processing_guarantee: str
    event_loop_lag_s: float
    memory: Memory
    lag: int | None
    """Of requests, jobs and routes."""
    lifecycle_lag: int | None
    """Of counts, labels and rollouts."""
    throughput: Throughput | None
    latency: dict[str, Latency]
    generation: int | None = None
    rebalances: int | None = None
    tenants: tuple[TenantSnapshot, ...] = ()
    partitions: tuple[PartitionSnapshot, ...] = ()
    models: tuple[ModelSnapshot, ...] = ()
    aliases: tuple[AliasSnapshot, ...] = ()
    dangling_aliases: tuple[DanglingAlias, ...] = ()
    pauses: tuple[PauseSnapshot, ...] = ()
    quotas: tuple[QuotaSnapshot, ...] = ()
    """Of tenants that have one."""
    model_formats: tuple[FormatReport, ...] = ()
    """Filled in by the route: reading the metadata of all packages takes time."""
    model_memory: ModelMemorySnapshot = ModelMemorySnapshot()
    batches: int = 0
    batch_rows_last: int = 0
    queued_bytes: int = 0
    in_flight_bytes: int = 0
    commits: int = 0
    commit_failures: int = 0
    records_missing: int = 0
    cache: tuple[CacheSnapshot, ...] = ()
    jobs: tuple[JobsSnapshot, ...] = ()
    routes: tuple[RouteSnapshot, ...] = ()
    shadows: tuple[ShadowSnapshot, ...] = ()
    drift: tuple[DriftSnapshot, ...] = ()
    rollouts: tuple[RolloutsSnapshot, ...] = ()
    steps: dict[str, Latency] = {}
    """Duration of each step that occurred, by name."""
    restoring: int | None = None
    """Changelog records still to be read before partitions open; None if no table is being restored."""
    restored_records: int = 0
    last_error: str | None = None
    waiting: tuple[WaitSnapshot, ...] = ()
    """Tenants that wait for permissions on Kafka or for their topics; the others are served."""


class StatusBoard:
    """Collects the state of the process and its streams. Call `sample` at least about once a second."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.event_loop_lag_s = 0.0
        self.traffic: TrafficSource | None = None
        self.ring = SampleRing()
        self._clock = clock
        self._started = clock()
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._stage: Stage = "starting"
        self._stage_since = self._started
        self._reason = "starting"
        self._source: SnapshotSource | None = None
        self._samples: deque[tuple[float, StreamsSnapshot]] = deque(maxlen=SAMPLES_MAX)

    @property
    def uptime_s(self) -> float:
        """Seconds since the process started."""
        return self._clock() - self._started

    def enter(self, stage: Stage, reason: str) -> None:
        """Enters `stage`; `reason` says why it is not ready (ignored if running)."""
        if stage != self._stage:
            self._stage, self._stage_since = stage, self._clock()
        self._reason = reason

    def draining(self) -> str | None:
        """Why the process takes no new work; None while it does."""
        return self._reason if self._stage in ("draining", "stopped") else None

    def attach(self, source: SnapshotSource | None) -> None:
        """Takes snapshots from `source` from now on."""
        self._source = source
        self._samples.clear()
        self.ring.clear()

    def snapshot(self) -> StreamsSnapshot | None:
        """The current state of the streams; None if there are none."""
        return None if self._source is None else self._source.snapshot()

    def sample(self) -> None:
        """Keeps one snapshot per second, for throughput and recent latency, and samples for the history."""
        now = self._clock()
        if self._samples and now - self._samples[-1][0] < SAMPLE_EVERY_S:
            return
        if (snapshot := self.snapshot()) is not None:
            self._samples.append((now, snapshot))
            self.ring.observe(snapshot, resident_bytes())

    def unready(self, snapshot: StreamsSnapshot | None) -> tuple[str, ...]:
        """Why the worker is not ready; empty if it is ready."""
        of_streams = () if snapshot is None else snapshot.unready
        return of_streams if self._stage == "running" else (self._reason, *of_streams)

    def phase(self, snapshot: StreamsSnapshot | None) -> tuple[str, float]:
        """The phase, and the seconds since it began."""
        if self._stage == "running" and snapshot is not None:
            return snapshot.phase, snapshot.phase_for_s
        return self._stage, self._clock() - self._stage_since

    def status(self) -> Status:
        """The response of `/status`."""
        snapshot, settings = self.snapshot(), self.settings
        unready = self.unready(snapshot)
        phase, phase_for_s = self.phase(snapshot)
        partitions = snapshot.partitions if snapshot is not None else ()
        before = self._before(snapshot)
        return Status(
            worker=settings.worker_id,
            version=inferd_version(),
            started_at=self._started_at,
            uptime_s=round(self.uptime_s, 3),
            ready=not unready,
            unready=unready,
            phase=phase,
            phase_for_s=round(phase_for_s, 3),
            broker=settings.connection().bootstrap_servers,
            namespace=settings.namespace,
            group_id=settings.group,
            processing_guarantee=settings.processing_guarantee,
            event_loop_lag_s=round(self.event_loop_lag_s, 4),
            memory=Memory(resident_bytes(), peak_bytes()),
            lag=total_lag(partitions, lifecycle=False),
            lifecycle_lag=total_lag(partitions, lifecycle=True),
            throughput=_throughput(before, (self._clock(), snapshot)) if before and snapshot else None,
            latency=_latencies(before[1] if before else None, snapshot) if snapshot else {},
            steps=_steps(before[1] if before else None, snapshot) if snapshot else {},
            **self._of_streams(snapshot),
        )

    def _of_streams(self, snapshot: StreamsSnapshot | None) -> dict[str, Any]:
        if snapshot is None:
            return {"model_memory": ModelMemorySnapshot.empty(self.settings.models_bytes_max)}
        return {name: getattr(snapshot, name) for name in COPIED}

    def _before(self, snapshot: StreamsSnapshot | None) -> tuple[float, StreamsSnapshot] | None:
        """The oldest sample in the window."""
        now = self._clock()
        recent = (sample for sample in self._samples if now - sample[0] <= WINDOW_S + 1.0)
        return next(recent, None) if snapshot else None


def resident_bytes() -> int | None:
    """Resident memory of the process; None if the platform does not report it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def peak_bytes() -> int:
    """Peak resident memory of the process."""
    # VmHWM if available: on Linux, `ru_maxrss` starts with the memory of the parent process.
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1_024 for line in lines if line.startswith("VmHWM:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1_024


def total_lag(partitions: Iterable[PartitionSnapshot], *, lifecycle: bool) -> int | None:
    """Lag summed over the partitions of one kind whose end offset is known; None if there are none."""
    known = [each.lag for each in partitions if each.lag is not None and each.lifecycle == lifecycle]
    return sum(known) if known else None


def _throughput(before: tuple[float, StreamsSnapshot], now: tuple[float, StreamsSnapshot]) -> Throughput | None:
    seconds = now[0] - before[0]
    if seconds <= 0:
        return None
    rates = [max(b - a, 0) / seconds for a, b in zip(_totals(before[1]), _totals(now[1]), strict=True)]
    return Throughput(round(seconds, 1), *(round(rate, 1) for rate in rates))


def _totals(snapshot: StreamsSnapshot) -> tuple[int, int, int, int]:
    tenants = snapshot.tenants
    return (
        sum(tenant.requests_in for tenant in tenants),
        sum(model.rows for model in snapshot.models),
        sum(tenant.results for tenant in tenants),
        sum(sum(tenant.errors.values()) for tenant in tenants),
    )


def _latencies(before: StreamsSnapshot | None, now: StreamsSnapshot) -> dict[str, Latency]:
    found = {}
    for name in LATENCIES:
        later: LatencySnapshot = getattr(now, name)
        found[name] = _latency(getattr(before, name, None), later)
    return found


def _steps(before: StreamsSnapshot | None, now: StreamsSnapshot) -> dict[str, Latency]:
    earlier = before.steps if before is not None else {}
    return {step: _latency(earlier.get(step), later) for step, later in now.steps.items() if any(later.counts)}


def _latency(earlier: LatencySnapshot | None, later: LatencySnapshot) -> Latency:
    return Latency(recent=quantiles(since(earlier, later)), since_start=quantiles(later))

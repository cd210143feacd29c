"""What a worker measures: counters, latencies, steps, traces and stalls of the event loop."""

from inferd.streams.inference.cache import CacheSnapshot
from inferd.streams.telemetry.counters import (
    ChunkCounters,
    JobCounters,
    ModelCounters,
    ShadowCounters,
    Tally,
    TenantCounters,
)
from inferd.streams.telemetry.measure import WAIT_MS_MAX, LaneMeasures, LatencyHistogram
from inferd.streams.telemetry.snapshot import (
    NOTHING,
    AliasSnapshot,
    CaptureSnapshot,
    DanglingAlias,
    JobsSnapshot,
    LatencySnapshot,
    ModelMemorySnapshot,
    ModelSnapshot,
    ModelState,
    PartitionSnapshot,
    Phase,
    RouteSnapshot,
    RouteState,
    ShadowSnapshot,
    Step,
    StreamsSnapshot,
    TenantSnapshot,
    WaitSnapshot,
)
from inferd.streams.telemetry.stall_detector import StallDetector
from inferd.streams.telemetry.step_timer import StepTimer
from inferd.streams.telemetry.tracing import CALLER, CHUNK_SPAN, MESSAGE_SPAN, OpenSpans, Tracing, make_tracing

__all__ = [
    "CALLER",
    "CHUNK_SPAN",
    "MESSAGE_SPAN",
    "NOTHING",
    "WAIT_MS_MAX",
    "AliasSnapshot",
    "CacheSnapshot",
    "CaptureSnapshot",
    "ChunkCounters",
    "DanglingAlias",
    "JobCounters",
    "JobsSnapshot",
    "LaneMeasures",
    "LatencyHistogram",
    "LatencySnapshot",
    "ModelCounters",
    "ModelMemorySnapshot",
    "ModelSnapshot",
    "ModelState",
    "OpenSpans",
    "PartitionSnapshot",
    "Phase",
    "RouteSnapshot",
    "RouteState",
    "ShadowCounters",
    "ShadowSnapshot",
    "StallDetector",
    "Step",
    "StepTimer",
    "StreamsSnapshot",
    "Tally",
    "TenantCounters",
    "TenantSnapshot",
    "Tracing",
    "WaitSnapshot",
    "make_tracing",
]

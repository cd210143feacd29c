"""Fake streams with a configurable snapshot, for tests of the process around them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from inferd.schemas.routes import Route
from inferd.streams.http_requests import HttpAnswer
from inferd.streams.inference.cache.cache import CacheSnapshot
from inferd.streams.settings import StreamSettings
from inferd.streams.telemetry.snapshot import (
    CaptureSnapshot,
    DriftSnapshot,
    JobsSnapshot,
    LatencySnapshot,
    ModelSnapshot,
    PartitionSnapshot,
    RolloutSnapshot,
    RolloutsSnapshot,
    RouteSnapshot,
    ShadowSnapshot,
    StreamsSnapshot,
    TenantSnapshot,
)

BOUNDS_S = (0.001, 0.01, 0.1)
NOTHING_OBSERVED = LatencySnapshot(BOUNDS_S, (0, 0, 0, 0), 0.0)


def histogram(*counts: int, total_s: float = 0.0) -> LatencySnapshot:
    return LatencySnapshot(BOUNDS_S, counts, total_s)


def partition(topic: str = "inferd.default.requests", number: int = 0, **changes: Any) -> PartitionSnapshot:
    values = {"position": 110, "committed": 100, "end": 120, "lag": 20, "queued": 4, "in_flight": 6}
    return PartitionSnapshot(tenant=topic.split(".")[1], topic=topic, partition=number, **values | changes)


def route(name: str = "orders", **changes: Any) -> RouteSnapshot:
    values: dict[str, Any] = {
        "tenant": "default",
        "state": "waiting",
        "reason": "topic orders.scored does not exist: create it",
        "sources": ("orders.v1",),
        "format": "json",
        "model": "churn@champion",
        "sink": "orders.scored",
        "partitions": 4,
        "records_in": 100,
        "results": 80,
        "errors": {"malformed": 5},
        "dead_letters": 5,
        "tombstones": 10,
        "pending": 5,
        "bytes_out": 9_000,
        "lag": 12,
    }
    return RouteSnapshot(route=name, **values | changes)


def model(model_id: str = "churn", version: int = 1, **changes: Any) -> ModelSnapshot:
    values: dict[str, Any] = {
        "tenant": "default",
        "digest": "sha256:" + "ab" * 32,
        "state": "ready",
        "reason": None,
        "aliases": ("champion",),
        "requests": 40,
        "rows": 50,
        "predict_s": 0.5,
        "kernel": True,
    }
    return ModelSnapshot(model_id=model_id, version=version, **values | changes)


def tenant(name: str = "default", **changes: Any) -> TenantSnapshot:
    values: dict[str, Any] = {
        "requests_in": 50,
        "results": 40,
        "errors": {"malformed": 3, "model_not_found": 1},
        "dead_letters": 3,
        "pending": 6,
        "bytes_out": 4_096,
    }
    return TenantSnapshot(tenant=name, **values | changes)


def cache(model_id: str = "churn", version: int = 1, **changes: Any) -> CacheSnapshot:
    values: dict[str, Any] = {
        "tenant": "default",
        "hits": 300,
        "misses": 100,
        "fills": 90,
        "evictions": 8,
        "expirations": 7,
        "entries": 75,
        "n_bytes": 7_500,
        "hit_ratio": 0.75,
        "lookup_s": 0.25,
        "fill_s": 0.125,
        "saved_s": 1.5,
        "pays": True,
    }
    return CacheSnapshot(model_id=model_id, version=version, **values | changes)


def jobs(name: str = "default", **changes: Any) -> JobsSnapshot:
    values: dict[str, Any] = {
        "open": 2,
        "open_rows": 2_000,
        "rows_in": 5_000,
        "rows_succeeded": 2_900,
        "rows_failed": 100,
        "ended": {"completed": 3, "cancelled": 1},
        "refused": {"job_closed": 4},
        "chunks": 6,
        "chunk_rows": 6_144,
        "chunk_s": 0.75,
    }
    return JobsSnapshot(tenant=name, **values | changes)


def rollouts(name: str = "default") -> RolloutsSnapshot:
    return RolloutsSnapshot(name, [RolloutSnapshot("churn", "champion", 4, "running", "10%:1h")], {"rolled_back": 2})


def shadow(name: str = "default", **changes: Any) -> ShadowSnapshot:
    values: dict[str, Any] = {
        "model_id": "churn",
        "version": 4,
        "requests": 90,
        "rows": 100,
        "compared": 80,
        "differing": 8,
        "predict_s": 0.25,
        "dropped": {"busy": 2, "error": 5},
        "last_error": "ValueError: no",
    }
    return ShadowSnapshot(tenant=name, **values | changes)


def snapshot(**changes: Any) -> StreamsSnapshot:
    values: dict[str, Any] = {
        "phase": "running",
        "phase_for_s": 5.0,
        "unready": (),
        "generation": 3,
        "rebalances": 2,
        "partitions": (partition(),),
        "tenants": (tenant(),),
        "models": (model(),),
        "queue": NOTHING_OBSERVED,
        "infer": NOTHING_OBSERVED,
        "end_to_end": NOTHING_OBSERVED,
        "batches": 7,
        "batch_rows_last": 9,
        "queued_bytes": 1_000,
        "in_flight_bytes": 2_000,
        "commits": 11,
        "commit_failures": 1,
        "cache": (cache(),),
        "jobs": (jobs(),),
        "labels": {"default": {"joined": 5, "unmatched": 1, "repeated": 0, "invalid": 2}},
        "capture": (CaptureSnapshot("default", share=0.5, captured=30, refused=2),),
        "routes": (route(),),
        "shadows": (shadow(),),
        "drift": (DriftSnapshot("default", "churn", 4, 900, "given", 0.125, {"age": 0.25}),),
        "rollouts": (rollouts(),),
        "route_queue": NOTHING_OBSERVED,
        "route_end_to_end": NOTHING_OBSERVED,
        "direct": NOTHING_OBSERVED,
        "steps": {"predict": NOTHING_OBSERVED},
        "last_error": None,
    }
    return msgspec.convert(values | changes, StreamsSnapshot)


class FakeStreams:
    """Starts and stops as configured, and records calls."""

    def __init__(self, settings: StreamSettings, on_fatal: Callable[[str, int], None]) -> None:
        self.settings = settings
        self.on_fatal = on_fatal
        self.said = snapshot()
        self.start_errors: list[Exception] = []
        self.start_gate: asyncio.Event | None = None
        self.stop_gate: asyncio.Event | None = None
        self.stop_in_time = True
        self.starts = 0
        self.stops: list[float] = []
        self.asked: list[tuple[str, bytes, tuple[tuple[str, bytes], ...]]] = []
        self.answer = b'{"id":"1","model_id":"churn","version":1,"digest":"ab","prediction":0.5}'
        self.predict_gate: asyncio.Event | None = None
        self.predict_error: Exception | None = None
        self.jobs: Any = None

    async def start(self) -> None:
        self.starts += 1
        if self.start_gate:
            await self.start_gate.wait()
        if self.start_errors:
            raise self.start_errors.pop(0)

    async def stop(self, timeout_s: float) -> bool:
        self.stops.append(timeout_s)
        if self.stop_gate:
            await self.stop_gate.wait()
        return self.stop_in_time

    async def predict(self, tenant: str, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> HttpAnswer:
        self.asked.append((tenant, value, tuple(headers)))
        if self.predict_gate:
            await self.predict_gate.wait()
        if self.predict_error:
            raise self.predict_error
        return HttpAnswer(self.answer)

    def peers(self) -> frozenset[str]:
        return frozenset()

    def routes_of(self, _tenant: str) -> list[Route]:
        return []

    def snapshot(self) -> StreamsSnapshot:
        return self.said

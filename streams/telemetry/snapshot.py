"""What the streams are doing, as frozen values: the source of `/status`, `/readyz` and `/metrics`."""

from __future__ import annotations

from typing import Literal

import msgspec

from inferd.streams.inference.cache import CacheSnapshot

Phase = Literal["starting", "rebalancing", "recovering", "running", "draining", "stopped"]
ModelState = Literal["fetching", "trying", "ready", "failed"]
RequestStep = Literal["load", "receive", "validate", "preprocess", "lookup", "predict", "postprocess", "respond"]
JobStep = Literal["queue", "chunk", "process", "store", "retrieve"]
Step = Literal[RequestStep, JobStep]
"""The steps of the work that are timed."""


class PartitionSnapshot(msgspec.Struct, frozen=True):
    """One owned partition of a lane topic."""

    topic: str
    partition: int
    position: int
    """Next offset to take."""
    committed: int
    end: int | None
    """The log's end as far as it is known."""
    lag: int | None
    """`end - committed`."""
    queued: int
    in_flight: int
    """Records published but not yet acknowledged."""


class ModelSnapshot(msgspec.Struct, frozen=True):
    """One announced model version."""

    tenant: str
    model_id: str
    version: int
    digest: str
    state: ModelState
    reason: str | None
    """Why it failed, or what it waits for."""
    aliases: tuple[str, ...]
    """Those that lead to it, as `models list` shows them: `champion`, or `champion (90 %)` of a split."""
    requests: int
    rows: int
    predict_s: float


class DanglingAlias(msgspec.Struct, frozen=True):
    """An alias that leads to versions that are not deployed: requests to it end as `version_not_found`."""

    tenant: str
    model_id: str
    alias: str
    missing: tuple[int, ...]
    """Versions."""


class LatencySnapshot(msgspec.Struct, frozen=True):
    """A histogram since start: `counts[i]` observations in (`bounds[i - 1]`, `bounds[i]`] seconds, the last open."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total_s: float


NOTHING = LatencySnapshot((), (0,), 0.0)


class ModelErrors(msgspec.Struct, frozen=True):
    """How many requests to a deployed version ended with an error."""

    model_id: str
    version: int
    code: str
    count: int


class TenantSnapshot(msgspec.Struct, frozen=True):
    """Counters since start: requests_in = results + errors + pending."""

    tenant: str
    requests_in: int
    results: int
    errors: dict[str, int]
    """By code."""
    dead_letters: int
    pending: int
    bytes_out: int
    direct: int = 0
    """How many of `requests_in` came over HTTP instead of Kafka."""
    model_errors: tuple[ModelErrors, ...] = ()
    """Those of `errors` whose request asked for a version that is deployed."""


class JobsSnapshot(msgspec.Struct, frozen=True):
    """Batch jobs of one tenant: those owned here, and what was done here since the start for any."""

    tenant: str
    open: int
    """Jobs owned here that have not ended."""
    open_rows: int
    """Rows of their messages."""
    rows_in: int
    """Rows that the jobs owned here were handed."""
    rows_succeeded: int
    rows_failed: int
    ended: dict[str, int]
    """Jobs owned here that ended, by status."""
    refused: dict[str, int]
    """Messages that were refused, by code."""
    chunks: int
    """Chunks of any worker's jobs that were scored here."""
    chunk_rows: int
    chunk_s: float


class WaitSnapshot(msgspec.Struct, frozen=True):
    """A tenant that is not served, or not with everything."""

    tenant: str
    reason: str
    """What it waits for, and what to do."""


class StreamsSnapshot(msgspec.Struct, frozen=True):
    """All that `/status` and `/metrics` tell of the streams."""

    phase: Phase
    phase_for_s: float
    unready: tuple[str, ...]
    """Why the streams are not ready; empty where they are."""
    generation: int
    rebalances: int
    partitions: tuple[PartitionSnapshot, ...]
    tenants: tuple[TenantSnapshot, ...]
    models: tuple[ModelSnapshot, ...]
    queue: LatencySnapshot
    """From a record's timestamp to the start of its scoring."""
    infer: LatencySnapshot
    """Scoring of a micro-batch."""
    end_to_end: LatencySnapshot
    """From a record's timestamp to the broker's acknowledgement of its result."""
    batches: int
    batch_rows_last: int
    queued_bytes: int
    in_flight_bytes: int
    commits: int
    commit_failures: int
    last_error: str | None
    """The fault that work waits on now, in words; None while all is well."""
    records_missing: int = 0
    """Requests that retention deleted before the group had read them."""
    dangling_aliases: tuple[DanglingAlias, ...] = ()
    cache: tuple[CacheSnapshot, ...] = ()
    jobs: tuple[JobsSnapshot, ...] = ()
    restoring: int | None = None
    """Changelog records that are still to be read before partitions are open; None while no table is restored."""
    restored_records: int = 0
    """Changelog records read since the start."""
    direct: LatencySnapshot = NOTHING
    """From a request over HTTP to its answer, inside the streams."""
    steps: dict[Step, LatencySnapshot] = {}
    """Each step of the work, once a micro-batch, model, message or chunk."""
    waiting: tuple[WaitSnapshot, ...] = ()
    """Tenants that wait for rights on Kafka, or for their topics."""

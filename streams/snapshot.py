"""What the streams are doing, as frozen values: the source of `/status`, `/readyz` and `/metrics`."""

from __future__ import annotations

from typing import Literal

import msgspec

Phase = Literal["starting", "rebalancing", "recovering", "running", "draining", "stopped"]
ModelState = Literal["fetching", "trying", "ready", "failed"]


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
    requests: int
    rows: int
    predict_s: float


class LatencySnapshot(msgspec.Struct, frozen=True):
    """A histogram since start: `counts[i]` observations in (`bounds[i - 1]`, `bounds[i]`] seconds, the last open."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total_s: float


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

"""What the streams are doing, as frozen values: the source of `/status`, `/readyz` and `/metrics`."""

from __future__ import annotations

from typing import Literal

import msgspec

from inferd.streams.inference.cache import CacheSnapshot

Phase = Literal["starting", "rebalancing", "recovering", "running", "draining", "stopped"]
ModelState = Literal["fetching", "trying", "ready", "unloaded", "failed"]
RequestStep = Literal["load", "receive", "validate", "preprocess", "lookup", "predict", "postprocess", "respond"]
JobStep = Literal["queue", "chunk", "process", "store", "retrieve"]
Step = Literal[RequestStep, JobStep]
"""The steps of the work that are timed."""


class PartitionSnapshot(msgspec.Struct, frozen=True):
    """One owned partition of a lane topic."""

    tenant: str
    topic: str
    partition: int
    position: int
    """Next offset to take."""
    committed: int
    end: int | None
    """The end offset, if known."""
    lag: int | None
    """`end - committed`."""
    queued: int
    in_flight: int
    """Records published but not yet acknowledged."""
    lifecycle: bool = False
    """Whether it has counts, labels or rollouts of models in production: not the work that users wait for."""


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
    """Aliases that point at it, as shown by `models list`: `champion`, or `champion (90 %)` for a split."""
    requests: int
    rows: int
    predict_s: float
    kernel: bool | None = None
    """Whether a compiled kernel scores it; None if its format has none, or if it is not loaded."""
    kernel_fault: str | None = None
    """Why the library scores it instead."""
    batching: bool | None = None
    """False: its rows are scored one by one, because a batch would change bits. None if it is not loaded."""


class AliasSnapshot(msgspec.Struct, frozen=True):
    """An alias as this worker has read it."""

    tenant: str
    model_id: str
    alias: str
    target: str
    """For people: `3`, or `3 (90 %), 4 (10 %)`, and shadow versions."""
    revision: int
    changed_at: str | None = None
    changed_by: str | None = None


class DanglingAlias(msgspec.Struct, frozen=True):
    """An alias of versions that are not deployed: requests to it fail with `version_not_found`."""

    tenant: str
    model_id: str
    alias: str
    missing: tuple[int, ...]
    """The versions that are not deployed."""


class PauseSnapshot(msgspec.Struct, frozen=True):
    """A model or a route whose records wait until it is resumed."""

    tenant: str
    kind: str
    """`model` or `route`."""
    name: str
    at: int
    """Since when, Unix milliseconds."""
    by: str
    reason: str | None = None


class LatencySnapshot(msgspec.Struct, frozen=True):
    """A histogram since start: `counts[i]` observations in (`bounds[i - 1]`, `bounds[i]`] seconds, the last open."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total_s: float


NOTHING = LatencySnapshot((), (0,), 0.0)


class ModelMemorySnapshot(msgspec.Struct, frozen=True):
    """Loaded model versions, and those that requests wait for."""

    loaded: int = 0
    bytes: int | None = None
    """Memory that they take, as measured in their trials; None without a budget."""
    bytes_max: int | None = None
    """The budget (`INFERD_MODELS_BYTES_MAX`)."""
    loads: int = 0
    """Since the start, as are `unloads` and `load_failures`."""
    unloads: int = 0
    load_failures: int = 0
    waiting: int = 0
    """Versions that requests wait for now."""

    @classmethod
    def empty(cls, bytes_max: int) -> ModelMemorySnapshot:
        """Before any version is read; `bytes_max` is the budget, 0 without one."""
        return cls(bytes=0, bytes_max=bytes_max) if bytes_max else cls()


class ModelErrors(msgspec.Struct, frozen=True):
    """Number of requests to a deployed version that failed with an error code."""

    model_id: str
    version: int
    code: str
    count: int


class RolloutSnapshot(msgspec.Struct, frozen=True):
    """A rollout that may still change an alias."""

    model_id: str
    alias: str
    version: int
    """The new version."""
    phase: str
    step: str


class RolloutsSnapshot(msgspec.Struct, frozen=True):
    """The rollouts of a tenant that this worker owns."""

    tenant: str
    live: list[RolloutSnapshot] = []
    ended: dict[str, int] = {}
    """By phase, those that have ended since the start of this worker."""


class DriftSnapshot(msgspec.Struct, frozen=True):
    """How far what a version scored in the last hour is from its baseline."""

    tenant: str
    model_id: str
    version: int
    rows: int
    source: str
    """Of the baseline: `given` or `learned`."""
    prediction_psi: float | None
    features: dict[str, float]
    """PSI by feature, the largest ones."""


class ShadowSnapshot(msgspec.Struct, frozen=True):
    """A version that scores requests after another one has answered them; counts since the start of this worker."""

    tenant: str
    model_id: str
    version: int
    requests: int
    """Requests that it scored."""
    rows: int
    compared: int
    """Rows whose predictions of both versions could be compared."""
    differing: int
    """Rows whose predictions disagree."""
    predict_s: float
    dropped: dict[str, int]
    """Requests without a shadow result, by reason."""
    last_error: str | None = None
    """The last exception that it raised, or that it took too long."""
    aside_until: float | None = None
    """Unix seconds; until then it is not used, because it took too long."""


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
    """The part of `requests_in` received over HTTP."""
    model_errors: tuple[ModelErrors, ...] = ()
    """The part of `errors` from requests to a deployed version."""


class QuotaSnapshot(msgspec.Struct, frozen=True):
    """The quota of one tenant; limits are those of all workers together, everything else is of this worker."""

    tenant: str
    requests_per_s: float
    """0: unlimited."""
    bytes_per_s: float
    """0: unlimited."""
    share: float
    """The part of the limits that this worker may use: its share of the tenant's request partitions."""
    used_requests_per_s: float
    """Over the last ten seconds, as `used_bytes_per_s`."""
    used_bytes_per_s: float
    delayed: int
    """How often records were left in their topic for later, since the start."""
    refused: int
    """Requests over HTTP, since the start; they are in no other number."""


class CaptureSnapshot(msgspec.Struct, frozen=True):
    """Captured requests of one tenant since the start of this worker."""

    tenant: str
    share: float
    """Of the requests, 0 to 1."""
    captured: int
    refused: int
    """Too large for the topic."""


class JobsSnapshot(msgspec.Struct, frozen=True):
    """Batch jobs of one tenant: the jobs that this worker owns, and its work on all jobs since the start."""

    tenant: str
    open: int
    """Jobs owned here that have not ended."""
    open_rows: int
    """Rows of these jobs."""
    rows_in: int
    """Rows received by jobs owned here."""
    rows_succeeded: int
    rows_failed: int
    ended: dict[str, int]
    """Jobs owned here that ended, by status."""
    refused: dict[str, int]
    """Rejected messages, by error code."""
    chunks: int
    """Chunks scored here, whichever worker owns their jobs."""
    chunk_rows: int
    chunk_s: float


RouteState = Literal["running", "waiting", "refused"]
"""`running`: records are processed as they come. `waiting`: for what `reason` names. `refused`: until the route, the
settings or another route is changed."""


class RouteSnapshot(msgspec.Struct, frozen=True):
    """A route: records_in = results + errors + tombstones + pending, since the start of this worker."""

    tenant: str
    route: str
    state: RouteState
    reason: str | None
    """Why records wait, or why the route is refused, and what to do."""
    sources: tuple[str, ...]
    format: str
    model: str
    sink: str
    partitions: int
    """Partitions of the sources that this worker processes."""
    records_in: int
    results: int
    """Records of the sink with a prediction."""
    errors: dict[str, int]
    """By code."""
    dead_letters: int
    tombstones: int
    pending: int
    bytes_out: int
    lag: int | None = None
    """Records of these partitions that are not committed yet; None if it is not known."""


class WaitSnapshot(msgspec.Struct, frozen=True):
    """A tenant that is not served, or only partly."""

    tenant: str
    reason: str
    """What it waits for, and what to do."""


class StreamsSnapshot(msgspec.Struct, frozen=True):
    """The state of the streams, for `/status` and `/metrics`."""

    phase: Phase
    phase_for_s: float
    unready: tuple[str, ...]
    """Why the streams are not ready; empty if they are ready."""
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
    """The current fault that blocks work; None if there is none."""
    records_missing: int = 0
    """Requests that retention deleted before the group read them."""
    aliases: tuple[AliasSnapshot, ...] = ()
    dangling_aliases: tuple[DanglingAlias, ...] = ()
    pauses: tuple[PauseSnapshot, ...] = ()
    quotas: tuple[QuotaSnapshot, ...] = ()
    """Of tenants that have one."""
    cache: tuple[CacheSnapshot, ...] = ()
    jobs: tuple[JobsSnapshot, ...] = ()
    restoring: int | None = None
    """Changelog records left to restore; None if no table is being restored."""
    restored_records: int = 0
    """Changelog records read since the start."""
    direct: LatencySnapshot = NOTHING
    """Latency of requests over HTTP, inside the streams."""
    steps: dict[Step, LatencySnapshot] = {}
    """Duration of each step, one observation per micro-batch, model, message or chunk."""
    model_memory: ModelMemorySnapshot = ModelMemorySnapshot()
    model_wait: LatencySnapshot = NOTHING
    """How long requests waited for a version to be loaded: one observation a load."""
    labels: dict[str, dict[str, int]] = {}
    """By tenant and outcome, labels since the start of this worker; empty if predictions do not wait for labels."""
    capture: tuple[CaptureSnapshot, ...] = ()
    """Of the tenants; empty if no requests are captured."""
    routes: tuple[RouteSnapshot, ...] = ()
    route_queue: LatencySnapshot = NOTHING
    """Of routes: from a record's timestamp to the start of its scoring."""
    route_end_to_end: LatencySnapshot = NOTHING
    """Of routes: from a record's timestamp to the broker's acknowledgement of its output."""
    shadows: tuple[ShadowSnapshot, ...] = ()
    drift: tuple[DriftSnapshot, ...] = ()
    """Of the versions whose windows this worker owns, with a baseline and enough rows."""
    rollouts: tuple[RolloutsSnapshot, ...] = ()
    """Of the tenants whose rollouts this worker owns."""
    waiting: tuple[WaitSnapshot, ...] = ()
    """Tenants that wait for Kafka ACLs, or for their topics."""

"""The snapshot of the streams, collected from the lane, the model follower and the consumer group."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
from aiokafka import TopicPartition

from inferd.schemas.models import alias_labels, alias_text
from inferd.streams.admission import Admission
from inferd.streams.composition import TenantParts
from inferd.streams.connection import setting_name, why_unreachable
from inferd.streams.inference import Version, accelerated, scores_batches
from inferd.streams.inference.cache import CacheSnapshot
from inferd.streams.labels import OUTCOMES
from inferd.streams.lane import Lane, Partition
from inferd.streams.models.follower import ModelFollower
from inferd.streams.requests import Quota
from inferd.streams.routes import RouteService
from inferd.streams.settings import StreamSettings
from inferd.streams.shadow import Shadows
from inferd.streams.telemetry import (
    NOTHING,
    AliasSnapshot,
    CaptureSnapshot,
    DanglingAlias,
    JobsSnapshot,
    LaneMeasures,
    ModelCounters,
    ModelMemorySnapshot,
    ModelSnapshot,
    PartitionSnapshot,
    PauseSnapshot,
    Phase,
    QuotaSnapshot,
    RolloutsSnapshot,
    RouteSnapshot,
    StreamsSnapshot,
    TenantSnapshot,
    WaitSnapshot,
)

ROWS_KNOWN_MIN = 1_000
"""Minimum number of rows for a meaningful mean cost of a cache lookup or a prediction."""
UNREACHABLE_S = 6.0
"""How long the broker may be silent before the worker is unready."""


class StreamsView(Protocol):
    """The part of the streams that their status reads; implemented by `inferd.streams.app.Streams`."""

    settings: StreamSettings
    measures: LaneMeasures
    route_measures: LaneMeasures
    routes: RouteService | None
    admission: Admission
    follower: ModelFollower | None
    lane: Lane | None
    shadows: Shadows | None
    tenants: Mapping[str, TenantParts]

    @property
    def generation(self) -> int: ...

    @property
    def rebalances(self) -> int: ...

    def topic_problems(self) -> list[str]:
        """Problems of topics and their partitions, each with its remedy."""

    def highwater(self, tp: TopicPartition) -> int | None:
        """The high watermark of a partition; None if it is not known."""


def take_snapshot(streams: StreamsView, phase: Phase, phase_for_s: float) -> StreamsSnapshot:
    """The current state of `streams`."""
    lane, measures = streams.lane, streams.measures
    memory = streams.follower.on_demand if streams.follower is not None else None
    bytes_max = streams.settings.models.bytes_max
    partitions = list(lane.partitions.values()) if lane is not None else []
    return StreamsSnapshot(
        phase=phase,
        phase_for_s=phase_for_s,
        unready=tuple(_unready(streams, phase, partitions)),
        generation=streams.generation,
        rebalances=streams.rebalances,
        partitions=tuple(_partition(streams, partition) for partition in partitions),
        tenants=_tenants(streams),
        models=_models(streams),
        aliases=_aliases(streams),
        dangling_aliases=_dangling_aliases(streams),
        pauses=_pauses(streams),
        queue=measures.queue.snapshot(),
        infer=measures.infer.snapshot(),
        end_to_end=measures.end_to_end.snapshot(),
        batches=measures.batches,
        batch_rows_last=measures.batch_rows_last,
        queued_bytes=sum(partition.queued_bytes for partition in partitions),
        in_flight_bytes=sum(partition.in_flight_bytes for partition in partitions),
        commits=measures.commits,
        commit_failures=measures.commit_failures,
        records_missing=measures.records_missing,
        cache=_caches(streams),
        quotas=tuple(
            _quota(tenant, parts.requests.quota)
            for tenant, parts in streams.tenants.items()
            if parts.requests.quota.limited
        ),
        jobs=tuple(_jobs(tenant, parts) for tenant, parts in streams.tenants.items()),
        capture=_capture(streams),
        labels={
            tenant: dict.fromkeys(OUTCOMES, 0) | dict(parts.labels.outcomes)
            for tenant, parts in streams.tenants.items()
            if parts.labels is not None
        },
        restoring=lane.restoring if lane is not None else None,
        restored_records=lane.restored_records if lane is not None else 0,
        direct=measures.direct.snapshot(),
        steps={step: histogram.snapshot() for step, histogram in measures.steps.items()},
        last_error=_last_error(streams),
        model_memory=memory.snapshot() if memory is not None else ModelMemorySnapshot.empty(bytes_max),
        model_wait=memory.waits.snapshot() if memory is not None else NOTHING,
        routes=_routes(streams, partitions),
        route_queue=streams.route_measures.queue.snapshot(),
        route_end_to_end=streams.route_measures.end_to_end.snapshot(),
        shadows=streams.shadows.snapshot() if streams.shadows is not None else (),
        drift=tuple(drift for parts in streams.tenants.values() for drift in parts.lifecycle.drift.snapshot()),
        rollouts=_rollouts(streams),
        waiting=tuple(WaitSnapshot(tenant, reason) for tenant, reason in streams.admission.waits.items()),
    )


def _last_error(streams: StreamsView) -> str | None:
    of_tenants = [f"tenant {tenant} waits: {reason}" for tenant, reason in streams.admission.waits.items()]
    of_topics = next(iter(streams.topic_problems()), None)
    of_models = streams.follower.fault if streams.follower is not None else None
    return fault_of(streams) or "; ".join(of_tenants) or of_topics or of_models or _of_routes(streams)


def _of_routes(streams: StreamsView) -> str | None:
    routes = _routes(streams, [])
    return next((f"route {each.route} is {each.state}: {each.reason}" for each in routes if each.reason), None)


def fault_of(streams: StreamsView) -> str | None:
    """Why no records are processed: missing rights of all tenants, a fault of the lane, or a silent broker."""
    if streams.admission.fault is not None:
        return streams.admission.fault
    fault = streams.lane.fault if streams.lane is not None else None
    if fault is None and (silent_s := _silent_s(streams)) > UNREACHABLE_S:
        fault = f"the broker has not answered for {silent_s:.0f} s"
    unreachable = None if fault is None else why_unreachable(streams.settings.connection)
    if unreachable is None:
        return fault
    address, reason = unreachable
    return f"{fault}: {address} {reason.text(setting_name)}"


def _silent_s(streams: StreamsView) -> float:
    """Seconds since the broker last answered."""
    reachable_at = streams.follower.reachable_at if streams.follower is not None else None
    return 0.0 if reachable_at is None else time.monotonic() - reachable_at


def _unready(streams: StreamsView, phase: Phase, partitions: Sequence[Partition]) -> list[str]:
    reasons = []
    if phase != "running":
        reasons.append(f"the streams are {phase}")
    elif not partitions:
        reasons.append("no partitions are assigned to this worker")
    if (fault := fault_of(streams)) is not None:
        reasons.append(fault)
    reasons += streams.topic_problems()
    # A version whose replacement with the same number has failed is not "ready" but still serves.
    if not any(version.usable for _, version in _versions(streams)):
        reasons.append("no model is ready; deploy one with `inferd models deploy`")
    return reasons


def _partition(streams: StreamsView, partition: Partition) -> PartitionSnapshot:
    end = streams.highwater(partition.tp)
    assert streams.lane is not None
    return PartitionSnapshot(
        tenant=streams.lane.tenant_of(partition.tp.topic),
        topic=partition.tp.topic,
        partition=partition.tp.partition,
        position=partition.next_take,
        committed=partition.committed,
        end=end,
        lag=None if end is None else _lag(partition, end),
        queued=partition.queued,
        in_flight=partition.taken + partition.in_flight,
        lifecycle=streams.lane.is_lifecycle(partition.tp.topic),
    )


def _lag(partition: Partition, end: int) -> int:
    """Consumer lag: records between the committed offset and the high watermark."""
    return max(0, end - partition.committed)


def _tenants(streams: StreamsView) -> tuple[TenantSnapshot, ...]:
    if streams.lane is None:
        return ()
    return streams.lane.tenant_snapshots()


def _quota(tenant: str, quota: Quota) -> QuotaSnapshot:
    requests, n_bytes = quota.used_per_s()
    return QuotaSnapshot(
        tenant, quota.requests_per_s, quota.bytes_per_s, quota.share, requests, n_bytes, quota.delays, quota.refused
    )


def _capture(streams: StreamsView) -> tuple[CaptureSnapshot, ...]:
    captures = [(tenant, parts.capture) for tenant, parts in streams.tenants.items()]
    return tuple(CaptureSnapshot(tenant, of.share, of.written, of.refused) for tenant, of in captures if of is not None)


def _rollouts(streams: StreamsView) -> tuple[RolloutsSnapshot, ...]:
    found = (parts.rollouts.owned.snapshot() for parts in streams.tenants.values())
    return tuple(snapshot for snapshot in found if snapshot is not None)


def _jobs(tenant: str, parts: TenantParts) -> JobsSnapshot:
    jobs = parts.jobs
    counters, in_use, scored = jobs.owned.counters, jobs.owned.in_use, jobs.chunks.scored
    return JobsSnapshot(
        tenant=tenant,
        open=in_use.jobs,
        open_rows=in_use.rows,
        rows_in=counters.rows_in,
        rows_succeeded=counters.rows_succeeded,
        rows_failed=counters.rows_failed,
        ended=dict(counters.ended),
        refused=dict(sum((processor.counters.errors for processor in jobs.processors), Counter[str]())),
        chunks=scored.chunks,
        chunk_rows=scored.rows,
        chunk_s=scored.seconds,
    )


def _routes(streams: StreamsView, partitions: Sequence[Partition]) -> tuple[RouteSnapshot, ...]:
    if streams.routes is None:
        return ()
    ends = {partition.tp: streams.highwater(partition.tp) for partition in partitions}
    return streams.routes.snapshots(partitions, ends)


def _caches(streams: StreamsView) -> tuple[CacheSnapshot, ...]:
    return tuple(
        _cache(streams, usage)
        for parts in streams.tenants.values()
        if parts.requests.predictions is not None
        for usage in parts.requests.predictions.cache.usage()
    )


def _cache(streams: StreamsView, usage: CacheSnapshot) -> CacheSnapshot:
    counters = streams.measures.by_model.get((usage.tenant, usage.model_id, usage.version), ModelCounters())
    saved = saved_s(usage, counters)
    return msgspec.structs.replace(usage, saved_s=saved, pays=None if saved is None else saved > 0)


def saved_s(usage: CacheSnapshot, counters: ModelCounters) -> float | None:
    """Seconds that cache hits have saved: the model's mean cost of these rows minus the cost of the cache; None if
    either has too few rows."""
    if usage.hits + usage.misses < ROWS_KNOWN_MIN or counters.scored_rows < ROWS_KNOWN_MIN:
        return None
    return usage.hits * counters.predict_s / counters.scored_rows - usage.lookup_s - usage.fill_s


def _versions(streams: StreamsView) -> list[tuple[str, Version]]:
    """All model versions, each with its tenant."""
    catalogs = streams.follower.catalogs if streams.follower is not None else {}
    return [(tenant, version) for tenant, catalog in catalogs.items() for version in catalog.versions()]


def _models(streams: StreamsView) -> tuple[ModelSnapshot, ...]:
    return tuple(_model(streams, tenant, version) for tenant, version in _versions(streams))


def _aliases(streams: StreamsView) -> tuple[AliasSnapshot, ...]:
    catalogs = streams.follower.catalogs if streams.follower is not None else {}
    return tuple(
        AliasSnapshot(
            tenant, model_id, alias, alias_text(target), target.revision, target.changed_at, target.changed_by
        )
        for tenant, catalog in catalogs.items()
        for (model_id, alias), target in catalog.every_alias().items()
    )  # fmt: skip


def _pauses(streams: StreamsView) -> tuple[PauseSnapshot, ...]:
    pauses = streams.follower.pauses if streams.follower is not None else {}
    return tuple(
        PauseSnapshot(tenant, key.kind, key.name, pause.at, pause.by, pause.reason)
        for tenant, of_tenant in pauses.items()
        for key, pause in sorted(of_tenant.all.items())
    )


def _dangling_aliases(streams: StreamsView) -> tuple[DanglingAlias, ...]:
    catalogs = streams.follower.catalogs if streams.follower is not None else {}
    return tuple(
        DanglingAlias(tenant, model_id, alias, tuple(missing))
        for tenant, catalog in catalogs.items()
        for (model_id, alias), missing in catalog.dangling_aliases().items()
    )


def _model(streams: StreamsView, tenant: str, version: Version) -> ModelSnapshot:
    assert streams.follower is not None
    manifest = version.manifest
    key = (tenant, manifest.model_id, manifest.version)
    counters = streams.measures.by_model.get(key, ModelCounters())
    aliases = streams.follower.catalogs[tenant].aliases(manifest.model_id)
    fast = accelerated(version.served.runtime) if version.served is not None else None
    return ModelSnapshot(
        tenant=tenant,
        model_id=manifest.model_id,
        version=manifest.version,
        digest=manifest.sha256,
        state=version.state,
        reason=version.reason,
        aliases=tuple(sorted(alias_labels(aliases, manifest.version))),
        requests=counters.requests,
        rows=counters.rows,
        predict_s=counters.predict_s,
        kernel=None if fast is None else fast.kernel_fault is None,
        kernel_fault=None if fast is None else fast.kernel_fault,
        batching=None if version.served is None else scores_batches(version.served.runtime),
    )

"""The snapshot of the streams, put together from what the lane, the deploys and the group know."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from streams.inference.catalog import Version
from streams.measure import LaneMeasures, ModelCounters
from streams.partition import Partition
from streams.snapshot import ModelSnapshot, PartitionSnapshot, Phase, StreamsSnapshot, TenantSnapshot

if TYPE_CHECKING:
    from streams.app import Streams

UNREACHABLE_S = 6.0
"""How long the broker may leave questions unanswered before readiness says so."""


def take_snapshot(streams: Streams, phase: Phase, phase_for_s: float) -> StreamsSnapshot:
    """What goes on in `streams` now."""
    lane, measures = streams.lane, streams.measures
    partitions = list(lane.partitions.values()) if lane is not None else []
    models = _models(streams)
    return StreamsSnapshot(
        phase=phase,
        phase_for_s=phase_for_s,
        unready=tuple(_unready(streams, phase, partitions, models)),
        generation=streams.generation,
        rebalances=streams.rebalances,
        partitions=tuple(_partition(streams, partition) for partition in partitions),
        tenants=_tenants(streams),
        models=models,
        queue=measures.queue.snapshot(),
        infer=measures.infer.snapshot(),
        end_to_end=measures.end_to_end.snapshot(),
        batches=measures.batches,
        batch_rows_last=measures.batch_rows_last,
        queued_bytes=sum(partition.queued_bytes for partition in partitions),
        in_flight_bytes=sum(partition.in_flight_bytes for partition in partitions),
        commits=measures.commits,
        commit_failures=measures.commit_failures,
        last_error=_fault(streams),
    )


def _fault(streams: Streams) -> str | None:
    """What work waits for: the lane's fault, or a broker that does not answer."""
    if streams.lane is not None and streams.lane.fault is not None:
        return streams.lane.fault
    reachable_at = streams.deploys.reachable_at if streams.deploys is not None else None
    if reachable_at is None:
        return None
    silent_s = time.monotonic() - reachable_at
    return f"the broker has not answered for {silent_s:.0f} s" if silent_s > UNREACHABLE_S else None


def _unready(
    streams: Streams, phase: Phase, partitions: list[Partition], models: tuple[ModelSnapshot, ...]
) -> list[str]:
    reasons = []
    if phase != "running":
        reasons.append(f"the streams are {phase}")
    elif not partitions:
        reasons.append("no partitions are assigned to this worker")
    if (fault := _fault(streams)) is not None:
        reasons.append(fault)
    if not any(model.state == "ready" for model in models):
        reasons.append("no model is ready; deploy one with `inferd models deploy`")
    return reasons


def _partition(streams: Streams, partition: Partition) -> PartitionSnapshot:
    end = streams.highwater(partition.tp)
    return PartitionSnapshot(
        topic=partition.tp.topic,
        partition=partition.tp.partition,
        position=partition.next_take,
        committed=partition.committed,
        end=end,
        lag=None if end is None else max(0, end - partition.committed),
        queued=partition.queued,
        in_flight=partition.taken + partition.in_flight,
    )


def _tenants(streams: Streams) -> tuple[TenantSnapshot, ...]:
    return streams.lane.tenant_snapshots() if streams.lane is not None else ()


def _models(streams: Streams) -> tuple[ModelSnapshot, ...]:
    if streams.deploys is None:
        return ()
    return tuple(
        _model(
            streams.measures, tenant, version, catalog.aliases_of(version.manifest.model_id, version.manifest.version)
        )
        for tenant, catalog in streams.deploys.catalogs.items()
        for version in catalog.versions()
    )


def _model(measures: LaneMeasures, tenant: str, version: Version, aliases: tuple[str, ...]) -> ModelSnapshot:
    manifest = version.manifest
    counters = measures.by_model.get((tenant, manifest.model_id, manifest.version), ModelCounters())
    return ModelSnapshot(
        tenant=tenant,
        model_id=manifest.model_id,
        version=manifest.version,
        digest=manifest.sha256,
        state=version.state,
        reason=version.reason,
        aliases=aliases,
        requests=counters.requests,
        rows=counters.rows,
        predict_s=counters.predict_s,
    )

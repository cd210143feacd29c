"""Composes the processors and tables of one tenant's lifecycle of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inferd.schemas.topics import TenantTopics
from inferd.streams.kafka import UNCHECKED, Destinations
from inferd.streams.lane import Processor
from inferd.streams.lifecycle.drift_watch import BaselineOf, DriftWatch
from inferd.streams.lifecycle.processors import LifecycleContext, StatsProcessor
from inferd.streams.lifecycle.windows import WindowStore
from inferd.streams.settings import StreamSettings
from inferd.streams.state import LaneTable


@dataclass(frozen=True, slots=True)
class TenantLifecycle:
    """The lifecycle of one tenant's models: what this worker owns of it, and the processors of its topics."""

    windows: WindowStore
    drift: DriftWatch
    context: LifecycleContext
    processors: Sequence[Processor]
    tables: Sequence[LaneTable]


def compose_lifecycle(
    settings: StreamSettings,
    tenant: str,
    windows_table: LaneTable,
    others: Sequence[LaneTable],
    destinations: Destinations = UNCHECKED,
    baseline_of: BaselineOf = lambda _model, _version: None,
) -> TenantLifecycle:
    """The windows of a tenant. Processors of `LIFECYCLE_STREAMS` share one unit: all have all tables, `others` too."""
    tables = (windows_table, *others)
    windows = WindowStore(tenant, windows_table, settings.monitor.windows_h)
    context = LifecycleContext(
        TenantTopics(settings.namespace, tenant), windows, tables, settings.worker_id, settings.limits, destinations,
        baseline_of,
    )  # fmt: skip
    drift = DriftWatch(tenant, windows, baseline_of)
    return TenantLifecycle(windows, drift, context, (StatsProcessor(context, drift),), tables)

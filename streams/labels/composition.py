"""Composes the join of one tenant's labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferd.schemas.topics import TenantTopics
from inferd.streams.kafka import Destinations
from inferd.streams.labels.predictions import PredictionsToLabel
from inferd.streams.labels.processors import LabelContext, LabelMessageProcessor, PredictionProcessor
from inferd.streams.labels.store import LabelStore
from inferd.streams.lane import Processor
from inferd.streams.settings import StreamSettings
from inferd.streams.state import LaneTable


@dataclass(frozen=True, slots=True)
class TenantLabels:
    """The join of one tenant's labels: what this worker owns of it, and what its lanes write."""

    store: LabelStore
    processors: Sequence[Processor]
    predictions: PredictionsToLabel
    outcomes: Counter[str]


def compose_labels(
    settings: StreamSettings, tenant: str, table: LaneTable, destinations: Destinations, used: Callable[[], int]
) -> TenantLabels:
    """The processors of `to-label` and `labels`. Both have the table: they share one unit a partition. `used`: how many
    partitions are used."""
    topics = TenantTopics(settings.namespace, tenant)
    store = LabelStore(tenant, table)
    context = LabelContext(
        topics=topics, store=store, used=used, window_ms=int(settings.labels_window_s * 1000),
        worker_id=settings.worker_id, limits=settings.limits, destinations=destinations,
    )  # fmt: skip
    predictions = PredictionsToLabel(topics.name("to-label"), used, destinations)
    processors = (PredictionProcessor(context), LabelMessageProcessor(context))
    return TenantLabels(store, processors, predictions, context.outcomes)

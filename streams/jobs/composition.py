"""Composes the processors and the store of one tenant's jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferd.schemas.topics import TenantTopics
from inferd.streams.inference import ModelCatalog
from inferd.streams.jobs.chunk_processor import ChunkProcessor
from inferd.streams.jobs.job_store import JobStore
from inferd.streams.jobs.processors import JobContext, JobMessageProcessor, JobResultProcessor
from inferd.streams.jobs.reader import RecordReader
from inferd.streams.jobs.scoring import ChunkScorer, ProcessBatch, pin_in
from inferd.streams.kafka import UNCHECKED, Destinations
from inferd.streams.lane import Processor
from inferd.streams.settings import StreamSettings
from inferd.streams.state import LaneTable
from inferd.streams.telemetry import LaneMeasures


@dataclass(frozen=True, slots=True)
class TenantJobs:
    """The jobs of one tenant: the owned ones, and the processors of their topics."""

    owned: JobStore
    processors: Sequence[Processor]
    chunks: ChunkProcessor


def compose_jobs(  # noqa: PLR0913, PLR0917  (everything that jobs need)
    settings: StreamSettings,
    tenant: str,
    table: LaneTable,
    catalog: ModelCatalog,
    reader: RecordReader,
    measures: LaneMeasures,
    destinations: Destinations = UNCHECKED,
    process_batch: ProcessBatch | None = None,
    used: Callable[[], int] | None = None,
) -> TenantJobs:
    """`process_batch`: user code that scores chunks instead of a model; `used`: how many partitions of the topics are
    used, by default those of the settings."""
    used = used if used is not None else lambda: settings.topics.partitions
    topics = TenantTopics(settings.namespace, tenant)
    owned = JobStore(tenant, table, settings.limits)
    context = JobContext(topics, owned, pin_in(catalog), used, settings.worker_id, measures, destinations)
    scorer = ChunkScorer(catalog, settings.limits, process_batch)
    chunks = ChunkProcessor(topics, scorer, reader, settings, measures, destinations, used=used)
    return TenantJobs(owned, (JobMessageProcessor(context), JobResultProcessor(context), chunks), chunks)

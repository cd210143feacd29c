"""What the jobs of one tenant are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inferd.schemas.topics import TenantTopics
from inferd.streams.inference import ModelCatalog
from inferd.streams.jobs.chunk_processor import JobChunks
from inferd.streams.jobs.job_store import OwnedJobs
from inferd.streams.jobs.processors import JobMessages, JobResults, JobSurroundings
from inferd.streams.jobs.reader import RecordReader
from inferd.streams.jobs.scoring import ChunkScorer, ProcessBatch, pin_in
from inferd.streams.kafka import EVERYTHING, Outlets
from inferd.streams.lane import Stage
from inferd.streams.settings import StreamSettings
from inferd.streams.state import LaneTable
from inferd.streams.telemetry import ChunkCounters, LaneMeasures


@dataclass(frozen=True, slots=True)
class TenantJobs:
    """The jobs of one tenant: those owned here, and the stages that move them."""

    owned: OwnedJobs
    stages: Sequence[Stage]
    scored: ChunkCounters


def compose_jobs(
    settings: StreamSettings,
    tenant: str,
    table: LaneTable,
    catalog: ModelCatalog,
    reader: RecordReader,
    measures: LaneMeasures,
    outlets: Outlets = EVERYTHING,
    process_batch: ProcessBatch | None = None,
) -> TenantJobs:
    """`process_batch`: a user's own code that answers chunks instead of a model."""
    topics = TenantTopics(settings.namespace, tenant)
    owned = OwnedJobs(tenant, table, settings.limits)
    surroundings = JobSurroundings(
        topics, owned, pin_in(catalog), settings.topics.partitions, settings.worker_id, measures, outlets
    )
    scorer = ChunkScorer(catalog, settings.limits, process_batch)
    chunks = JobChunks(topics, scorer, reader, settings, measures, outlets)
    return TenantJobs(owned, (JobMessages(surroundings), JobResults(surroundings), chunks), chunks.scored)

"""What the jobs of one tenant are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.topics import TenantTopics
from streams.counters import ChunkCounters
from streams.inference.catalog import ModelCatalog
from streams.inference.chunk_scoring import ChunkScorer, ProcessBatch
from streams.inference.job_models import pin_in
from streams.jobs.chunks import JobChunks
from streams.jobs.owned import OwnedJobs
from streams.jobs.records import RecordReader
from streams.jobs.stages import JobMessages, JobResults, JobSurroundings
from streams.measure import LaneMeasures
from streams.outlets import EVERYTHING, Outlets
from streams.settings import StreamSettings
from streams.stage import Stage
from streams.tables import LaneTable


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

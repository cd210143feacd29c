"""Base of processors whose state is in a table: each record is taken or goes to the dead letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import structlog
from aiokafka import TopicPartition

from inferd.schemas.errors import ModelServingError
from inferd.schemas.limits import Limits
from inferd.schemas.topics import Stream, TenantTopics
from inferd.streams.group import Records
from inferd.streams.inference import Record, internal_error
from inferd.streams.kafka import Destinations
from inferd.streams.lane.dead_letters import DeadLetters, rejection_of
from inferd.streams.lane.output_batch import OutputBatch, timestamps_of
from inferd.streams.lane.processor import Kind
from inferd.streams.state import LaneTable
from inferd.streams.telemetry import Tally, TenantCounters

log = structlog.get_logger(__name__)

Take = Callable[[Record], ModelServingError | None]
"""Takes a record; returns or raises the reason if it is rejected."""


class OwnerProcessor:
    """One topic, whose partitions have an owner with tables."""

    kind: Kind
    waits = False
    fault_event: ClassVar[str]
    """The log event of an unexpected exception."""

    def __init__(
        self,
        topics: TenantTopics,
        stream: Stream,
        tables: Sequence[LaneTable],
        worker_id: str,
        limits: Limits,
        destinations: Destinations,
    ) -> None:
        self.tenant = topics.tenant
        self.topic = topics.name(stream)
        self.counters = TenantCounters(topics.tenant)
        self.tables = tables
        self._limits = limits
        self._dead_letters = DeadLetters(topics.name("dead-letters"), worker_id, destinations)

    def start(self, number: int) -> int | None:
        return None

    def idle_output(self, tp: TopicPartition, next_offset: int, now_ms: int) -> OutputBatch | None:
        return None

    @staticmethod
    def output_of(records: Records, now_ms: int) -> OutputBatch:
        """The output batch of records, still without output."""
        tally = Tally(results=len(records))
        return OutputBatch(records[-1].offset + 1, len(records), timestamps_of(records, now_ms), tally)

    def take_each(self, output: OutputBatch, tp: TopicPartition, records: Records, take: Take) -> None:
        """Takes the records one by one. No record may stop its partition: an unexpected exception rejects it."""
        for record in records:
            try:
                rejection = getattr(record, "rejection", None) or take(record)
            except ModelServingError as error:
                rejection = error
            except Exception as fault:
                log.exception(self.fault_event, tenant=self.tenant, topic=tp.topic, offset=record.offset)
                rejection = internal_error(fault)
            if rejection is not None:
                self.reject(output, tp, record, rejection_of(record, rejection, self._limits))

    def reject(self, output: OutputBatch, tp: TopicPartition, record: Record, error: ModelServingError) -> None:
        """Sends a record to the dead-letter topic; no state changes."""
        output.tally.results -= 1
        output.tally.errors[error.code] += 1
        self._dead_letters.add(output, record, tp, error)

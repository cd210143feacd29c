"""The processing guarantees: how outputs, state changes and the next offset of a partition are committed together.

A lane turns taken records into `Effects`; what happens to them is one `Guarantee`. `AtLeastOnce` produces them through
one idempotent producer and commits an offset once everything before it is acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from typing import Protocol

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata, RecordMetadata

from streams.effects import Effects
from streams.measure import LaneMeasures
from streams.partition import Flight, Partition
from streams.publish import close_producer, open_producer, produce, producer_options
from streams.settings import StreamSettings

log = structlog.get_logger(__name__)

COMMIT_TIMEOUT_S = 5.0
PUBLISH_ERRORS = (KafkaError, OSError, TimeoutError, asyncio.TimeoutError)
"""What a broker that cannot be reached, or refuses, raises. All of it means: rewind and publish again."""

Landed = Callable[[Partition, Flight], None]
Failed = Callable[[Partition, BaseException], None]


class Guarantee(Protocol):
    """What a lane asks of its processing guarantee."""

    async def fence(self, tps: Collection[TopicPartition]) -> None:
        """Before positions are read: from here on no earlier owner of `tps` can make anything take effect."""

    async def publish(self, partition: Partition, effects: Effects, timestamp_ms: int) -> None:
        """Sets effects on their way; returns once more of the same partition may follow. Raises `PUBLISH_ERRORS`."""

    async def commit(self, consumer: AIOKafkaConsumer, partitions: Collection[Partition]) -> None:
        """Makes what is acknowledged durable as the group's offsets, never more; a broker that refuses raises nothing."""

    async def renew(self) -> None:
        """After a failure: replaces what may be broken by it. Raises `PUBLISH_ERRORS`."""

    async def close(self) -> None:
        """Lets go of all producers."""


class AtLeastOnce:
    """Outputs first, offsets after: a crash in between repeats results, byte for byte, and loses none."""

    def __init__(self, settings: StreamSettings, measures: LaneMeasures, landed: Landed, failed: Failed) -> None:
        self._options = producer_options(settings)
        self._start_timeout_s = settings.group.request_timeout_s
        self._measures = measures
        self._landed = landed
        self._failed = failed
        self._producer: AIOKafkaProducer | None = None
        self._committing = asyncio.Lock()

    async def fence(self, tps: Collection[TopicPartition]) -> None:
        """Results may repeat, so there is nobody to fence; the producer is all that is needed."""
        if self._producer is None:
            self._producer = await open_producer(self._options, self._start_timeout_s)

    async def publish(self, partition: Partition, effects: Effects, timestamp_ms: int) -> None:
        producer = self._producer
        if producer is None:
            raise ConnectionError("there is no producer")
        flight = Flight(effects, effects.n_bytes)
        partition.depart(flight)
        acknowledged = partial(self._acknowledged, partition, flight)
        for (topic, number), records in effects.by_topic.items():
            for future in await produce(producer, topic, number, records, timestamp_ms):
                flight.unacknowledged += 1
                future.add_done_callback(acknowledged)
        effects.by_topic.clear()  # the producer has its own copy
        flight.published = True
        self._land(partition)

    def _acknowledged(self, partition: Partition, flight: Flight, future: asyncio.Future[RecordMetadata]) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            if partition.owns(flight):
                self._failed(partition, error)
            return
        flight.unacknowledged -= 1
        self._land(partition)

    def _land(self, partition: Partition) -> None:
        for landed in partition.land():
            self._landed(partition, landed)

    async def commit(self, consumer: AIOKafkaConsumer, partitions: Collection[Partition]) -> None:
        """One commit at a time; whatever it fails of means that the next owner repeats a little."""
        async with self._committing:
            offsets = {p: p.acked for p in partitions if p.acked > p.committed}
            if not offsets:
                return
            try:
                await asyncio.wait_for(consumer.commit(_kafka_offsets(offsets)), COMMIT_TIMEOUT_S)
            except PUBLISH_ERRORS as error:
                self._measures.commit_failures += 1
                log.warning("commit_failed", error=type(error).__name__, detail=str(error)[-200:])
                return
            self._measures.commits += 1
            for partition, offset in offsets.items():
                partition.committed = offset

    async def renew(self) -> None:
        """A producer whose batch failed may refuse every later one: it is replaced."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await close_producer(producer)
        self._producer = await open_producer(self._options, self._start_timeout_s)

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await close_producer(producer)


def _kafka_offsets(offsets: dict[Partition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    return {partition.tp: OffsetAndMetadata(offset, "") for partition, offset in offsets.items()}

"""At least once: outputs are published first; an offset is committed once everything before it is acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from functools import partial

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CommitFailedError
from aiokafka.structs import OffsetAndMetadata, RecordMetadata

from inferd.schemas.topics import tenant_of_topic
from inferd.streams.kafka import (
    UNCHECKED,
    Destinations,
    as_rejection,
    close_producer,
    offset_metadata,
    open_producer,
    produce,
    produce_changes,
    producer_options,
    raise_rejections,
)
from inferd.streams.lane.guarantee import PUBLISH_ERRORS, OnAcked, OnFailed, Outputs
from inferd.streams.lane.output_batch import OutputBatch
from inferd.streams.lane.partition import InFlightBatch, Partition
from inferd.streams.settings import StreamSettings
from inferd.streams.state import TablePartition
from inferd.streams.tasks import OnCrash, all_of, when_done
from inferd.streams.telemetry import LaneMeasures

log = structlog.get_logger(__name__)

COMMIT_TIMEOUT_S = 5.0


class AtLeastOnce:
    """Publishes through one idempotent producer for each tenant; one that fails delays no other tenant.

    A crash between publication and commit repeats results, byte for byte.
    """

    pause_s = 0.0

    def __init__(
        self,
        settings: StreamSettings,
        measures: LaneMeasures,
        on_acked: OnAcked,
        on_failed: OnFailed,
        on_crash: OnCrash,
        destinations: Destinations = UNCHECKED,
        tenant_of: Callable[[str], str] = tenant_of_topic,
    ) -> None:
        """`on_crash` is called with exceptions of acknowledgement callbacks; `destinations`: what topics accept;
        `tenant_of`: the tenant (or route) of a topic that is consumed."""
        self._options = producer_options(settings)
        self._start_timeout_s = settings.group.request_timeout_s
        self._measures = measures
        self._on_acked = on_acked
        self._on_failed = on_failed
        self._on_crash = on_crash
        self._bytes_max = destinations.bytes_max
        self._tenant_of = tenant_of
        self._producers: dict[str, AIOKafkaProducer] = {}
        """By tenant."""
        self._committing = asyncio.Lock()

    async def fence(self, outputs: Outputs) -> None:
        """Opens producers; results may repeat, so there is nothing to fence."""
        await all_of(map(self._open, self._tenants(outputs) - self._producers.keys()))

    async def _open(self, tenant: str) -> None:
        self._producers[tenant] = await open_producer(self._options, self._start_timeout_s)

    async def publish(self, partition: Partition, output: OutputBatch, timestamp_ms: int) -> None:
        producer = self._producers.get(self._tenant_of(partition.tp.topic))
        if producer is None:
            raise ConnectionError("there is no producer")
        batch = partition.start_publishing(output)
        replies = [place for place in output.by_topic if place[0] in output.replies]
        # A refused reply is replaced by an error on results: nothing later may be there before that.
        if sent := await self._send(producer, partition, batch, replies, timestamp_ms):
            await _all_acknowledged(sent)
        others = [place for place in output.by_topic if place not in replies]
        await self._send(producer, partition, batch, others, timestamp_ms)
        output.by_topic.clear()  # The producer has copied the records.
        for table, changes in output.changes.items():
            bytes_max = self._bytes_max(table.topic)
            for future, count in await produce_changes(
                producer, table.topic, table.number, changes, timestamp_ms, bytes_max
            ):
                batch.sent()
                when_done(future, partial(self._written, partition, batch, table, count), self._on_crash)
        batch.published()
        self._land(partition)

    async def _send(
        self,
        producer: AIOKafkaProducer,
        partition: Partition,
        batch: InFlightBatch,
        places: Collection[tuple[str, int]],
        timestamp_ms: int,
    ) -> list[asyncio.Future[RecordMetadata]]:
        """Passes the records for `places` to the producer; returns one future per batch."""
        futures = []
        for topic, number in places:
            acknowledged = partial(self._acknowledged, partition, batch, topic)
            records = batch.output.by_topic[topic, number]
            with raise_rejections(topic):
                sent = await produce(producer, topic, number, records, timestamp_ms, self._bytes_max(topic))
            for future in sent:
                batch.sent()
                when_done(future, acknowledged, self._on_crash)
            futures += sent
        return futures

    def _written(
        self,
        partition: Partition,
        batch: InFlightBatch,
        table: TablePartition,
        count: int,
        future: asyncio.Future[RecordMetadata],
    ) -> None:
        if not future.cancelled() and future.exception() is None:
            batch.wrote(table, future.result().offset + count - 1)
        self._acknowledged(partition, batch, table.topic, future)

    def _acknowledged(
        self, partition: Partition, batch: InFlightBatch, topic: str, future: asyncio.Future[RecordMetadata]
    ) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            if partition.owns(batch):
                self._on_failed(partition, as_rejection(topic, error))
            return
        batch.acknowledged()
        self._land(partition)

    def _land(self, partition: Partition) -> None:
        partition.complete_batches(partial(self._on_acked, partition))

    async def commit(self, consumer: AIOKafkaConsumer, partitions: Collection[Partition]) -> None:
        """One commit at a time; after a failed one, the next owner repeats some results."""
        async with self._committing:
            offsets = {p: p.acked for p in partitions if p.acked > p.committed}
            if not offsets:
                return
            try:
                # `wait_for` swallows a cancellation that comes as its inner task ends (Python 3.11).
                async with asyncio.timeout(COMMIT_TIMEOUT_S):
                    await consumer.commit(_kafka_offsets(offsets))
            except PUBLISH_ERRORS as error:
                self._measures.commit_failures += 1
                log.warning("commit_failed", reason=_reason(error))
                return
            self._measures.commits += 1
            for partition, offset in offsets.items():
                partition.commit(offset)

    def contended_part(self, topic: str) -> int:
        """Large divisor: short turns cost little here."""
        return 8

    def start(self, tp: TopicPartition, committed: int, acked: int) -> int:
        """Resumes at the acknowledged offset, committed or not."""
        return max(committed, acked)

    async def release(self, tps: Collection[TopicPartition]) -> None:
        """Does nothing: a producer serves the whole tenant."""

    async def discard(self, tps: Collection[TopicPartition]) -> None:
        """Closes the producers: after a failed batch, one may refuse every later batch."""
        await self._close(self._tenants(tps))

    async def close(self) -> None:
        """Closes every producer."""
        await self._close({*self._producers})

    def _tenants(self, tps: Iterable[TopicPartition]) -> set[str]:
        return {self._tenant_of(tp.topic) for tp in tps}

    async def _close(self, tenants: Collection[str]) -> None:
        producers = [self._producers.pop(tenant) for tenant in tenants if tenant in self._producers]
        await asyncio.gather(*map(close_producer, producers))


async def _all_acknowledged(futures: Collection[asyncio.Future[RecordMetadata]]) -> None:
    """Waits for all; raises the exception of one that failed. A cancelled wait does not cancel them."""
    done, _ = await asyncio.wait(futures)
    for future in done:
        future.result()


def _reason(error: BaseException) -> str:
    """Why a commit failed, in one line."""
    if isinstance(error, CommitFailedError):
        return "the group has rebalanced, or has dropped this worker: the next owner of the partition repeats a little"
    if isinstance(error, TimeoutError):
        return f"no answer within {COMMIT_TIMEOUT_S:g} s"
    return f"{type(error).__name__}: {error}"[:300]


def _kafka_offsets(offsets: dict[Partition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    return {
        partition.tp: OffsetAndMetadata(offset, offset_metadata(partition.topic_id))
        for partition, offset in offsets.items()
    }

"""The processing guarantees: how outputs, state changes and the next offset of a partition are committed together.

A lane turns taken records into `Effects`; what happens to them is one `Guarantee`. `AtLeastOnce` produces them through
one idempotent producer and commits an offset once everything before it is acknowledged. `ExactlyOnce` has a
transactional producer for each partition, and makes outputs and offset one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import starmap
from typing import Protocol

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CommitFailedError, KafkaError
from aiokafka.structs import OffsetAndMetadata, RecordMetadata

from inferd.schemas.topics import tenant_of_topic
from inferd.streams.kafka import (
    UNCHECKED,
    Destinations,
    TransactionResult,
    as_rejection,
    close_producer,
    last_transaction_results,
    offset_metadata,
    open_producer,
    produce,
    produce_changes,
    producer_options,
    raise_rejections,
    repeat_transaction_result,
    transaction_failures,
)
from inferd.streams.lane.output_batch import Effects
from inferd.streams.lane.partition import Flight, Partition
from inferd.streams.settings import StreamSettings
from inferd.streams.state import TablePartition
from inferd.streams.tasks import Crashed, all_of, when_done
from inferd.streams.telemetry import LaneMeasures

log = structlog.get_logger(__name__)

COMMIT_TIMEOUT_S = 5.0
TRANSACTION_RETRY_MS = 5
PUBLISH_ERRORS = (KafkaError, OSError, TimeoutError, asyncio.TimeoutError)
"""Raised where the broker cannot be reached, or refuses. After each of them: rewind and publish again."""

Outputs = Mapping[TopicPartition, Collection[TopicPartition]]
"""Partitions that are taken over, each with the partitions that its effects may be written to."""
Landed = Callable[[Partition, Flight], None]
Failed = Callable[[Partition, BaseException], None]


class Guarantee(Protocol):
    """How effects and offsets reach Kafka."""

    async def fence(self, outputs: Outputs) -> None:
        """To be called before positions are read: afterwards no earlier owner can publish or commit."""

    async def publish(self, partition: Partition, effects: Effects, timestamp_ms: int) -> None:
        """Publishes effects; returns once more of the same partition may follow. Raises `PUBLISH_ERRORS`."""

    async def commit(self, consumer: AIOKafkaConsumer, partitions: Collection[Partition]) -> None:
        """Commits the offsets of what is acknowledged, never more; a refusal raises nothing."""

    def contended_part(self, topic: str) -> int:
        """Which part of the usual size micro-batches of a topic are to have beside requests of other tenants."""

    @property
    def pause_s(self) -> float:
        """How long to wait after a failure before partitions that are still assigned are fenced again."""

    def start(self, tp: TopicPartition, committed: int, acked: int) -> int:
        """Offset to resume from after a failure; `acked`: what the broker had acknowledged before it."""

    async def release(self, tps: Collection[TopicPartition]) -> None:
        """Partitions went elsewhere: closes producers that served them alone."""

    async def discard(self, tps: Collection[TopicPartition]) -> None:
        """After a failure: closes every producer that serves one of `tps`; the next `fence` opens new ones."""

    async def close(self) -> None:
        """At the end: closes all producers."""


class AtLeastOnce:
    """Publishes outputs, and commits offsets afterwards: a crash in between repeats results, byte for byte.

    Each tenant has a producer of its own: one that fails holds up no other tenant.
    """

    pause_s = 0.0

    def __init__(
        self,
        settings: StreamSettings,
        measures: LaneMeasures,
        landed: Landed,
        failed: Failed,
        crashed: Crashed,
        destinations: Destinations = UNCHECKED,
    ) -> None:
        """`crashed` is called with what a callback of an acknowledgement raised; `destinations`: what topics accept."""
        self._options = producer_options(settings)
        self._start_timeout_s = settings.group.request_timeout_s
        self._measures = measures
        self._landed = landed
        self._failed = failed
        self._crashed = crashed
        self._bytes_max = destinations.bytes_max
        self._producers: dict[str, AIOKafkaProducer] = {}
        """By tenant."""
        self._committing = asyncio.Lock()

    async def fence(self, outputs: Outputs) -> None:
        """Opens producers; results may repeat, so there is nothing to fence."""
        await all_of(map(self._open, _tenants(outputs) - self._producers.keys()))

    async def _open(self, tenant: str) -> None:
        self._producers[tenant] = await open_producer(self._options, self._start_timeout_s)

    async def publish(self, partition: Partition, effects: Effects, timestamp_ms: int) -> None:
        producer = self._producers.get(tenant_of_topic(partition.tp.topic))
        if producer is None:
            raise ConnectionError("there is no producer")
        flight = partition.depart(effects)
        replies = [place for place in effects.by_topic if place[0] in effects.replies]
        # A refused reply is answered on results instead: nothing that follows may be there before that answer.
        if sent := await self._send(producer, partition, flight, replies, timestamp_ms):
            await _all_acknowledged(sent)
        others = [place for place in effects.by_topic if place not in replies]
        await self._send(producer, partition, flight, others, timestamp_ms)
        effects.by_topic.clear()  # the producer has its own copy
        for table, changes in effects.changes.items():
            bytes_max = self._bytes_max(table.topic)
            for future, count in await produce_changes(
                producer, table.topic, table.number, changes, timestamp_ms, bytes_max
            ):
                flight.sent()
                when_done(future, partial(self._written, partition, flight, table, count), self._crashed)
        flight.published()
        self._land(partition)

    async def _send(
        self,
        producer: AIOKafkaProducer,
        partition: Partition,
        flight: Flight,
        places: Collection[tuple[str, int]],
        timestamp_ms: int,
    ) -> list[asyncio.Future[RecordMetadata]]:
        """Hands the records for `places` to the producer; a future a batch."""
        futures = []
        for topic, number in places:
            acknowledged = partial(self._acknowledged, partition, flight, topic)
            records = flight.effects.by_topic[topic, number]
            with raise_rejections(topic):
                sent = await produce(producer, topic, number, records, timestamp_ms, self._bytes_max(topic))
            for future in sent:
                flight.sent()
                when_done(future, acknowledged, self._crashed)
            futures += sent
        return futures

    def _written(
        self,
        partition: Partition,
        flight: Flight,
        table: TablePartition,
        count: int,
        future: asyncio.Future[RecordMetadata],
    ) -> None:
        if not future.cancelled() and future.exception() is None:
            flight.wrote(table, future.result().offset + count - 1)
        self._acknowledged(partition, flight, table.topic, future)

    def _acknowledged(
        self, partition: Partition, flight: Flight, topic: str, future: asyncio.Future[RecordMetadata]
    ) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            if partition.owns(flight):
                self._failed(partition, as_rejection(topic, error))
            return
        flight.acknowledged()
        self._land(partition)

    def _land(self, partition: Partition) -> None:
        partition.land(partial(self._landed, partition))

    async def commit(self, consumer: AIOKafkaConsumer, partitions: Collection[Partition]) -> None:
        """One commit at a time; after one that fails, the next owner repeats a few results."""
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
        """Small: short turns cost little here."""
        return 8

    def start(self, tp: TopicPartition, committed: int, acked: int) -> int:
        """Resumes at what is acknowledged, committed or not."""
        return max(committed, acked)

    async def release(self, tps: Collection[TopicPartition]) -> None:
        """A tenant's producer serves whatever partitions there are."""

    async def discard(self, tps: Collection[TopicPartition]) -> None:
        """A producer whose batch failed may refuse every later one: it is not used again."""
        await self._close(_tenants(tps))

    async def close(self) -> None:
        """Closes every producer."""
        await self._close({*self._producers})

    async def _close(self, tenants: Collection[str]) -> None:
        producers = [self._producers.pop(tenant) for tenant in tenants if tenant in self._producers]
        await asyncio.gather(*map(close_producer, producers))


@dataclass(slots=True)
class _Transactions:
    """A transactional producer: one transaction at a time."""

    producer: AIOKafkaProducer
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class ExactlyOnce:
    """Publishes outputs and the next offset in one transaction: a reader of committed records sees each result once.

    Each partition has a producer with a transactional id of its own; partitions of the same `unit` share one, and take
    turns. Opening it fences the earlier owner and ends its transaction, so positions that are read afterwards are
    final. Where the broker has not written all markers of the last transaction, they are written before anything new.
    """

    def __init__(
        self,
        settings: StreamSettings,
        measures: LaneMeasures,
        landed: Landed,
        unit_of: Callable[[TopicPartition], str] = lambda tp: f"{tp.topic}-{tp.partition}",
        destinations: Destinations = UNCHECKED,
    ) -> None:
        self._options = producer_options(settings)
        self._group_id = settings.group.group_id
        self._start_timeout_s = settings.group.request_timeout_s
        self._transaction_timeout_ms = int(settings.transaction_timeout_s * 1000)
        self._measures = measures
        self._landed = landed
        self._unit_of = unit_of
        self._bytes_max = destinations.bytes_max
        self._connection = settings.connection
        self._producers: dict[str, _Transactions] = {}
        self._unrepeated: dict[str, TransactionResult] = {}
        """By transactional id, results of transactions that the fence has removed from the broker, to be repeated."""
        # After two heartbeats it is known whether this worker is still a member: if not, another owner has fenced it.
        self.pause_s = 2 * settings.group.heartbeat_interval_s

    async def fence(self, outputs: Outputs) -> None:
        """One new producer a unit; older ones are closed."""
        await self.release(outputs)
        units: dict[str, set[TopicPartition]] = {}
        for tp, written in outputs.items():
            units.setdefault(self._unit_of(tp), set()).update(written)
        ids = [self._transactional_id(unit) for unit in units]
        self._unrepeated |= await last_transaction_results(self._connection, ids, self._start_timeout_s)
        await all_of(starmap(self._open, units.items()))

    def _transactional_id(self, unit: str) -> str:
        return f"{self._group_id}-{unit}"

    async def _open(self, unit: str, outputs: Collection[TopicPartition]) -> None:
        transactional_id = self._transactional_id(unit)
        producer = await open_producer(
            self._options,
            self._start_timeout_s,
            transactional_id=transactional_id,
            transaction_timeout_ms=self._transaction_timeout_ms,
            # Kafka 4 refuses the first batch after a transaction marker for some milliseconds; aiokafka waits 100 ms.
            retry_backoff_ms=TRANSACTION_RETRY_MS,
        )
        self._producers[unit] = _Transactions(producer)
        if (ending := self._unrepeated.get(transactional_id)) is not None:
            async with asyncio.timeout(self._start_timeout_s):
                await repeat_transaction_result(producer, ending, self._group_id, outputs)
            del self._unrepeated[transactional_id]

    async def publish(self, partition: Partition, effects: Effects, timestamp_ms: int) -> None:
        """Returns when the transaction is committed.

        One that fails is left open: the next fence ends it, or the broker's timeout.
        """
        transactions = self._producers.get(self._unit_of(partition.tp))
        if transactions is None:
            raise ConnectionError("there is no producer")
        flight = partition.depart(effects)
        async with transactions.turn:
            with transaction_failures(transactions.producer):
                await self._publish(transactions.producer, partition, flight, timestamp_ms)
        flight.published()
        partition.land(partial(self._landed, partition))
        partition.commit(partition.acked)

    async def _publish(
        self, producer: AIOKafkaProducer, partition: Partition, flight: Flight, timestamp_ms: int
    ) -> None:
        """One transaction."""
        effects = flight.effects
        await producer.begin_transaction()
        sent: list[tuple[str, asyncio.Future[RecordMetadata]]] = []
        for (topic, number), records in effects.by_topic.items():
            with raise_rejections(topic):
                futures = await produce(producer, topic, number, records, timestamp_ms, self._bytes_max(topic))
            sent += [(topic, future) for future in futures]
        effects.by_topic.clear()
        written = [
            (table, future, count)
            for table, changes in effects.changes.items()
            for future, count in await produce_changes(
                producer, table.topic, table.number, changes, timestamp_ms, self._bytes_max(table.topic)
            )
        ]
        offset = {partition.tp: OffsetAndMetadata(effects.next_offset, offset_metadata(partition.topic_id))}
        await producer.send_offsets_to_transaction(offset, self._group_id)
        # A batch that expires does not fail the commit: each acknowledgement has to be awaited.
        await asyncio.gather(*starmap(_acknowledgement, sent))
        for table, future, count in written:
            flight.wrote(table, (await future).offset + count - 1)
        await producer.commit_transaction()
        self._measures.commits += 1

    async def commit(self, consumer: AIOKafkaConsumer, partitions: Collection[Partition]) -> None:
        """Nothing: the transactions have committed the offsets."""

    def contended_part(self, topic: str) -> int:
        """Large: a transaction costs as much as some hundred rows, and a backlog would take several times as long."""
        return 2

    def start(self, tp: TopicPartition, committed: int, acked: int) -> int:
        """Resumes at the committed offset: results and offset share one transaction.

        Kafka 4.4, while it stops, may report a transaction as committed and not write its markers: the result is known
        only after the fence.
        """
        return committed

    async def release(self, tps: Collection[TopicPartition]) -> None:
        """Closes the producers of `tps`."""
        await self._close({self._unit_of(tp) for tp in tps})

    async def discard(self, tps: Collection[TopicPartition]) -> None:
        await self.release(tps)

    async def close(self) -> None:
        """Closes every producer."""
        await self._close({*self._producers})

    async def _close(self, units: Collection[str]) -> None:
        producers = [self._producers.pop(unit).producer for unit in units if unit in self._producers]
        await asyncio.gather(*map(close_producer, producers))


def _tenants(tps: Iterable[TopicPartition]) -> set[str]:
    return {tenant_of_topic(tp.topic) for tp in tps}


async def _acknowledgement(topic: str, future: asyncio.Future[RecordMetadata]) -> None:
    """Waits for the acknowledgement of a batch; `TopicRejectedError` where the topic refuses it."""
    with raise_rejections(topic):
        await future


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

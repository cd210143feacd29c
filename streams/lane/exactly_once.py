"""Exactly once: outputs and the next offset of a partition are committed in one transaction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import starmap

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata, RecordMetadata

from inferd.streams.kafka import (
    UNCHECKED,
    Destinations,
    Outgoing,
    TransactionResult,
    close_producer,
    keyed_topics,
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
from inferd.streams.lane.guarantee import OnAcked, Outputs
from inferd.streams.lane.output_batch import OutputBatch
from inferd.streams.lane.partition import InFlightBatch, Partition
from inferd.streams.settings import StreamSettings
from inferd.streams.tasks import all_of
from inferd.streams.telemetry import LaneMeasures

TRANSACTION_RETRY_MS = 5


@dataclass(slots=True)
class _Transactions:
    """A transactional producer: one transaction at a time."""

    producer: AIOKafkaProducer
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class ExactlyOnce:
    """Publishes outputs and the next offset in one transaction: a reader of committed records sees each result once.

    Each partition has a producer with its own transactional id; partitions of the same `unit` share one, and use it
    alternately. Opening it fences the earlier owner and ends its transaction, so positions that are read afterwards are
    final. If the broker has not written all markers of the last transaction, they are written before anything new.
    """

    def __init__(
        self,
        settings: StreamSettings,
        measures: LaneMeasures,
        on_acked: OnAcked,
        unit_of: Callable[[TopicPartition], str] = lambda tp: f"{tp.topic}-{tp.partition}",
        destinations: Destinations = UNCHECKED,
    ) -> None:
        self._options = producer_options(settings)
        self._group_id = settings.group.group_id
        keyed = (topic for tenant in settings.tenants for topic in keyed_topics(settings, tenant))
        self._noted = dict.fromkeys(keyed, settings.topics.partitions)
        """By topic, the number of partitions that the metadata of offsets has."""
        self._start_timeout_s = settings.group.request_timeout_s
        self._transaction_timeout_ms = int(settings.transaction_timeout_s * 1000)
        self._measures = measures
        self._on_acked = on_acked
        self._unit_of = unit_of
        self._bytes_max = destinations.bytes_max
        self._connection = settings.connection
        self._producers: dict[str, _Transactions] = {}
        self._unrepeated: dict[str, TransactionResult] = {}
        """By transactional id, results of transactions that the fence has removed from the broker, to be repeated."""
        # After two heartbeats the worker knows whether it is still a member: if not, another owner has fenced it.
        self.pause_s = 2 * settings.group.heartbeat_interval_s

    async def fence(self, outputs: Outputs) -> None:
        """Opens one new producer per unit, and closes older ones."""
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

    async def publish(self, partition: Partition, output: OutputBatch, timestamp_ms: int) -> None:
        """Returns when the transaction is committed.

        One that fails is left open: the next fence ends it, or the broker's timeout.
        """
        transactions = self._producers.get(self._unit_of(partition.tp))
        if transactions is None:
            raise ConnectionError("there is no producer")
        batch = partition.start_publishing(output)
        async with transactions.turn:
            with transaction_failures(transactions.producer):
                await self._publish(transactions.producer, partition, batch, timestamp_ms)
        batch.published()
        partition.complete_batches(partial(self._on_acked, partition))
        partition.commit(partition.acked)

    async def _publish(
        self, producer: AIOKafkaProducer, partition: Partition, batch: InFlightBatch, timestamp_ms: int
    ) -> None:
        """One transaction."""
        output = batch.output
        await producer.begin_transaction()
        sent: list[tuple[str, asyncio.Future[RecordMetadata]]] = []
        for (topic, number), records in output.by_topic.items():
            with raise_rejections(topic):
                futures = await produce(producer, topic, number, records, timestamp_ms, self._bytes_max(topic))
            sent += [(topic, future) for future in futures]
        output.by_topic.clear()
        written = [
            (table, future, count)
            for table, changes in output.changes.items()
            for future, count in await produce_changes(
                producer, table.topic, table.number, changes, timestamp_ms, self._bytes_max(table.topic)
            )
        ]
        offset = self.offset_of(partition.tp, output.next_offset, partition.topic_id)
        await producer.send_offsets_to_transaction({partition.tp: offset}, self._group_id)
        # A batch that expires does not fail the commit: each acknowledgement has to be awaited.
        await asyncio.gather(*starmap(_acknowledgement, sent))
        for table, future, count in written:
            batch.wrote(table, (await future).offset + count - 1)
        await producer.commit_transaction()
        self._measures.commits += 1

    def offset_of(self, tp: TopicPartition, offset: int, topic_id: str) -> OffsetAndMetadata:
        """An offset as it is committed."""
        return OffsetAndMetadata(offset, offset_metadata(topic_id, self._noted.get(tp.topic, 0)))

    async def write(
        self,
        tp: TopicPartition,
        records: Mapping[tuple[str, int], Sequence[Outgoing]],
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
    ) -> None:
        """One transaction with the producer of a fenced partition: records by topic and partition, and offsets."""
        producer, now_ms = self._producers[self._unit_of(tp)].producer, int(time.time() * 1000)
        with transaction_failures(producer):
            await producer.begin_transaction()
            sent: list[tuple[str, asyncio.Future[RecordMetadata]]] = []
            for (topic, number), each in records.items():
                with raise_rejections(topic):
                    futures = await produce(producer, topic, number, each, now_ms, self._bytes_max(topic))
                sent += [(topic, future) for future in futures]
            if offsets:
                await producer.send_offsets_to_transaction(dict(offsets), self._group_id)
            await asyncio.gather(*starmap(_acknowledgement, sent))
            await producer.commit_transaction()

    async def commit(self, consumer: AIOKafkaConsumer, partitions: Collection[Partition]) -> None:
        """Does nothing: the transactions have committed the offsets."""

    def contended_part(self, topic: str) -> int:
        """Small divisor: a transaction costs as much as some hundred rows, so short turns would multiply the time."""
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


async def _acknowledgement(topic: str, future: asyncio.Future[RecordMetadata]) -> None:
    """Waits for the acknowledgement of a batch; `TopicRejectedError` if the topic refuses it."""
    with raise_rejections(topic):
        await future

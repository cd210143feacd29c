"""The client's connection to Kafka: one producer, lookup of topics before their use, typed errors."""

from __future__ import annotations

import asyncio
import math
import time
from asyncio import Future
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from inferd.errors import ClientClosedError, topic_not_found, typed_kafka_error
from inferd.schemas.codecs import CONTENT_TYPE, MSGPACK, Codec, codec_of
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.errors import ServerError
from inferd.schemas.headers import (
    RawHeaders,
)
from inferd.schemas.limits import Limits
from inferd.schemas.topics import STREAMS, Stream, TenantTopics
from inferd.streams.connection import client_options

# Added to the largest value for key, headers and the framing of the record.
RECORD_OVERHEAD_BYTES = 64 * 1_024
BATCH_BYTES_MAX = 128 * 1_024
FETCH_WAIT_MS = 500
TRANSACTION_TIMEOUT_MS = 15_000
POLL_MS = 200
PROGRESS_TIMEOUT_S = 30.0
TOPIC_KNOWN_WITHIN_S, TOPIC_RETRY_S = 1.0, 0.1
NOTED_WITHIN_S = 1.0
"""How long the number of partitions is taken as known where it decides in which partition a record belongs."""
FAULTS = (KafkaError, OSError, TimeoutError)


class Cluster:
    """One idempotent producer (`acks=all`) and the topics of one tenant."""

    def __init__(
        self,
        connection: KafkaConnection,
        topics: TenantTopics,
        client_id: str,
        limits: Limits,
        connect_timeout_s: float,
    ) -> None:
        self.connection = connection
        self.topics = topics
        self._client_id = client_id
        self._limits = limits
        self._connect_timeout_s = connect_timeout_s
        self._partitions: dict[Stream, tuple[int, ...]] = {}
        self._noted_at = -math.inf
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect; `BrokerUnreachableError` if no broker answers in time, `TlsError`, `AccessDeniedError`."""
        producer = AIOKafkaProducer(
            **client_options(self.connection),
            client_id=self._client_id,
            acks="all",
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES_MAX,
            max_request_size=self._limits.message_bytes_max + RECORD_OVERHEAD_BYTES,
        )
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await producer.start()
        except BaseException as error:
            await producer.stop()
            raise self.typed(error, "connecting") from error
        self._producer = producer

    async def stop(self) -> None:
        """Flush the producer and disconnect."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def partitions(self, stream: Stream) -> tuple[int, ...]:
        """The partitions of the tenant's topic; `TopicNotFoundError` if it does not exist."""
        if stream not in self._partitions:
            return await self._look_up(stream)
        return self._partitions[stream]

    async def _look_up(self, stream: Stream) -> tuple[int, ...]:
        """The partitions of a topic. Retries briefly, because a new topic is not yet known to all brokers."""
        topic, deadline = self.topics.name(stream), time.monotonic() + TOPIC_KNOWN_WITHIN_S
        while stream not in self._partitions:
            async with self.within(self._connect_timeout_s, f"looking for topic {topic}"):
                await self._note_partitions()
            if stream not in self._partitions:
                if time.monotonic() > deadline:
                    raise topic_not_found(topic, self.topics.tenant)
                await asyncio.sleep(TOPIC_RETRY_S)
        return self._partitions[stream]

    async def look_again(self, *, within_s: float = NOTED_WITHIN_S) -> None:
        """Notes how many partitions topics have, unless that was done `within_s` ago: some may have been added."""
        if time.monotonic() - self._noted_at > within_s:
            async with self.within(self._connect_timeout_s, "looking for partitions"):
                before = dict(self._partitions)
                await self._note_partitions()
                if before != self._partitions:
                    # The producer has metadata of its own, and refuses partitions that are not in it.
                    await self._connected().client.force_metadata_update()

    async def _note_partitions(self) -> None:
        # Fetches the metadata of all topics: asking for a missing topic by name would create it on brokers with
        # `auto.create.topics.enable`.
        metadata = await self._connected().client.fetch_all_metadata()
        for stream in STREAMS:
            if found := metadata.partitions_for_topic(self.topics.name(stream)):
                self._partitions[stream] = tuple(sorted(found))
        self._noted_at = time.monotonic()

    async def topics_of_others(self, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """The partitions of each topic; none if it does not exist, or may not be described."""
        async with self.within(self._connect_timeout_s, "looking for topics"):
            metadata = await self._connected().client.fetch_all_metadata()
        return {name: tuple(sorted(metadata.partitions_for_topic(name) or ())) for name in names}

    @asynccontextmanager
    async def consumer_of_others(self, tps: Sequence[TopicPartition]) -> AsyncIterator[AIOKafkaConsumer]:
        """A `read_committed` consumer without a group on partitions of any topics; raises what aiokafka raises."""
        consumer = AIOKafkaConsumer(**self._consumer_options(), fetch_max_wait_ms=FETCH_WAIT_MS)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await consumer.start()
            consumer.assign(list(tps))
            yield consumer
        finally:
            await consumer.stop()

    async def send(
        self,
        stream: Stream,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: RawHeaders = (),
        partition: int | None = None,
    ) -> Future[RecordMetadata]:
        """Hand one record to the producer; the future completes once every in-sync replica has it."""
        await self.partitions(stream)
        topic = self.topics.name(stream)
        try:
            sent: Future[RecordMetadata] = await self._connected().send(
                topic, value, key=key, headers=list(headers), partition=partition
            )
        except FAULTS as error:
            raise self.typed(error, f"sending to {topic}") from error
        return sent

    async def acknowledged(self, stream: Stream, sent: Sequence[Future[RecordMetadata]]) -> list[RecordMetadata]:
        """Wait until the broker has acknowledged all records in `sent`; where they are."""
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        found: list[RecordMetadata] = []
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise self.send_error(stream, outcome) from outcome
            found.append(outcome)
        return found

    def send_error(self, stream: Stream, error: BaseException) -> BaseException:
        """The typed error of a record that could not be produced."""
        return self.typed(error, f"sending to {self.topics.name(stream)}")

    @asynccontextmanager
    async def consumer(
        self, stream: Stream, partitions: Sequence[int], *, fetch_wait_ms: int = FETCH_WAIT_MS
    ) -> AsyncIterator[AIOKafkaConsumer]:
        """A `read_committed` consumer without a group on `partitions` of the topic, without a position yet.

        `fetch_wait_ms` (`fetch.max.wait.ms`): how long the broker holds a fetch that finds nothing. Other requests on
        the same connection, such as a fetch after a seek, wait behind it.
        """
        consumer = None
        try:
            consumer = await self.open_consumer(stream, partitions, fetch_wait_ms=fetch_wait_ms)
            yield consumer
        except FAULTS as error:
            raise self.typed(error, f"reading {self.topics.name(stream)}") from error
        finally:
            if consumer is not None:
                await consumer.stop()

    async def open_consumer(self, stream: Stream, partitions: Sequence[int], *, fetch_wait_ms: int) -> AIOKafkaConsumer:
        """Like `consumer`, but raises the exceptions of aiokafka, and the caller stops the consumer."""
        consumer = AIOKafkaConsumer(**self._consumer_options(), fetch_max_wait_ms=fetch_wait_ms)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await consumer.start()
        except BaseException:
            await consumer.stop()
            raise
        consumer.assign([TopicPartition(self.topics.name(stream), partition) for partition in partitions])
        return consumer

    def transactional_producer(self, transactional_id: str) -> AIOKafkaProducer:
        """A producer of transactions that the caller starts and stops. Starting it fences others of the same id."""
        return AIOKafkaProducer(
            **client_options(self.connection),
            client_id=self._client_id,
            transactional_id=transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            max_request_size=self._limits.dead_letter_bytes_max + RECORD_OVERHEAD_BYTES,
        )

    def _consumer_options(self) -> dict[str, Any]:
        return {
            **client_options(self.connection),
            "client_id": self._client_id,
            "group_id": None,
            "enable_auto_commit": False,
            "isolation_level": "read_committed",
            # Applies only if retention has removed the position; results of other clients are skipped anyway.
            "auto_offset_reset": "earliest",
        }

    def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise ClientClosedError("the client is not connected: use `async with Client(…)`, or call start() first")
        return self._producer

    @asynccontextmanager
    async def within(self, timeout_s: float, doing: str) -> AsyncIterator[None]:
        """Bounds an operation in time; an exception of aiokafka, and the end of the time, become typed errors. `doing`
        names the operation."""
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except FAULTS as error:
            raise self.typed(error, doing) from error

    def typed(self, error: BaseException, doing: str) -> BaseException:
        """The typed error for an exception of aiokafka; `doing` names the operation."""
        if not isinstance(error, Exception):
            return error
        return typed_kafka_error(error, doing, self.connection)


async def is_behind(consumer: AIOKafkaConsumer) -> bool:
    """Whether there is more to read now in the partitions of a consumer."""
    ends = await consumer.end_offsets(list(consumer.assignment()))
    return any([await consumer.position(partition) < end for partition, end in ends.items()])


async def offsets_since(
    consumer: AIOKafkaConsumer, tps: Sequence[TopicPartition], since: datetime
) -> dict[TopicPartition, int]:
    """The offset of the first record since a time in each partition; the end if there is none."""
    ends = await consumer.end_offsets(tps)
    found = await consumer.offsets_for_times(dict.fromkeys(tps, max(0, round(since.timestamp() * 1_000))))
    return {tp: ends[tp] if found.get(tp) is None else found[tp].offset for tp in tps}


async def records_between(
    consumer: AIOKafkaConsumer, since: datetime | None, until: datetime | None = None
) -> AsyncGenerator[Any, None]:
    """The records between two times that are in a consumer's partitions now, partition by partition.

    `since`: None for all from the beginning; `until`: None for all up to the end. Raises `ServerError` if there is no
    progress.
    """
    tps = sorted(consumer.assignment())
    ends = dict(await consumer.end_offsets(tps))
    firsts = await (consumer.beginning_offsets(tps) if since is None else offsets_since(consumer, tps, since))
    if until is not None:
        ends |= {tp: min(ends[tp], end) for tp, end in (await offsets_since(consumer, tps, until)).items()}
    for tp in tps:
        consumer.seek(tp, firsts[tp])
    for tp in tps:
        deadline = time.monotonic() + PROGRESS_TIMEOUT_S
        # Compare positions, not record offsets: markers of transactions leave gaps.
        while (position := await consumer.position(tp)) < ends[tp]:
            for record in (await consumer.getmany(tp, timeout_ms=POLL_MS)).get(tp, ()):
                if record.offset < ends[tp]:
                    yield record
            if await consumer.position(tp) > position:
                deadline = time.monotonic() + PROGRESS_TIMEOUT_S
            elif time.monotonic() > deadline:
                raise ServerError(f"no progress in {tp.topic} partition {tp.partition}: at {position} of {ends[tp]}")


def codec_of_record(headers: Iterable[tuple[str, bytes]]) -> Codec:
    """The codec that a record's headers name; MessagePack if it is missing or unknown."""
    for key, value in headers:
        if key == CONTENT_TYPE:
            return codec_of(value.decode("ascii", "replace")) or MSGPACK
    return MSGPACK

"""The client's way to the Kafka cluster: one producer, topics that are looked up before they are used, typed errors."""

from __future__ import annotations

import asyncio
import time
from asyncio import Future
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from inferd.errors import ClientClosedError, of_kafka, topic_not_found
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.headers import (
    CONTENT_TYPE,
    CONTENT_TYPES,
    Encoding,
    RawHeaders,
)
from inferd.schemas.limits import Limits
from inferd.schemas.topics import STREAMS, Stream, TenantTopics
from inferd.streams.connection import client_options

# Room for key, headers and the record's own framing around the largest value.
RECORD_OVERHEAD_BYTES = 64 * 1_024
BATCH_BYTES_MAX = 128 * 1_024
FETCH_WAIT_MS = 500
TOPIC_KNOWN_WITHIN_S, TOPIC_RETRY_S = 1.0, 0.1
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
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connects; `BrokerUnreachableError` when no broker answers in time, `TlsError`, `AccessDeniedError`."""
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
            raise self._typed(error, "connecting") from error
        self._producer = producer

    async def stop(self) -> None:
        """Sends what is still to be sent, and disconnects."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def partitions(self, stream: Stream) -> tuple[int, ...]:
        """The partitions of the tenant's topic; `TopicNotFoundError` where there is none."""
        if stream not in self._partitions:
            return await self._look_up(stream)
        return self._partitions[stream]

    async def _look_up(self, stream: Stream) -> tuple[int, ...]:
        """Partitions of a topic; one that was created just now is waited for a moment, until brokers know of it."""
        topic, deadline = self.topics.name(stream), time.monotonic() + TOPIC_KNOWN_WITHIN_S
        while stream not in self._partitions:
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    await self._note_partitions()
            except FAULTS as error:
                raise self._typed(error, f"looking for topic {topic}") from error
            if stream not in self._partitions:
                if time.monotonic() > deadline:
                    raise topic_not_found(topic, self.topics.tenant)
                await asyncio.sleep(TOPIC_RETRY_S)
        return self._partitions[stream]

    async def _note_partitions(self) -> None:
        # Asked for by name, a topic that is not there would be created by brokers that create topics on their own; the
        # answer has all topics anyway.
        metadata = await self._connected().client.fetch_all_metadata()
        for stream in STREAMS:
            if found := metadata.partitions_for_topic(self.topics.name(stream)):
                self._partitions[stream] = tuple(sorted(found))

    async def send(
        self,
        stream: Stream,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: RawHeaders = (),
        partition: int | None = None,
    ) -> Future[RecordMetadata]:
        """Hands one record to the producer; the future is done once every in-sync replica has it."""
        await self.partitions(stream)
        topic = self.topics.name(stream)
        try:
            sent: Future[RecordMetadata] = await self._connected().send(
                topic, value, key=key, headers=list(headers), partition=partition
            )
        except FAULTS as error:
            raise self._typed(error, f"sending to {topic}") from error
        return sent

    async def acknowledged(self, stream: Stream, sent: Sequence[Future[RecordMetadata]]) -> None:
        """Waits until the broker has everything that was `sent`."""
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise self.send_error(stream, outcome) from outcome

    def send_error(self, stream: Stream, error: BaseException) -> BaseException:
        """The typed error of a record that the broker did not take."""
        return self._typed(error, f"sending to {self.topics.name(stream)}")

    @asynccontextmanager
    async def consumer(
        self, stream: Stream, partitions: Sequence[int], *, fetch_wait_ms: int = FETCH_WAIT_MS
    ) -> AsyncIterator[AIOKafkaConsumer]:
        """A consumer without a group on `partitions` of the topic, at no position yet; reads what is committed.

        `fetch_wait_ms`: how long the broker holds a fetch back that finds nothing. Whatever else is asked of it waits
        behind that, another position, too.
        """
        consumer = AIOKafkaConsumer(**self._consumer_options(), fetch_max_wait_ms=fetch_wait_ms)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await consumer.start()
            consumer.assign([TopicPartition(self.topics.name(stream), partition) for partition in partitions])
            yield consumer
        except FAULTS as error:
            raise self._typed(error, f"reading {self.topics.name(stream)}") from error
        finally:
            await consumer.stop()

    def _consumer_options(self) -> dict[str, Any]:
        return {
            **client_options(self.connection),
            "client_id": self._client_id,
            "group_id": None,
            "enable_auto_commit": False,
            "isolation_level": "read_committed",
            # Only after retention has overtaken a reader; results of others are skipped anyway.
            "auto_offset_reset": "earliest",
        }

    def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise ClientClosedError("the client is not connected: use `async with Client(…)`, or call start() first")
        return self._producer

    def _typed(self, error: BaseException, doing: str) -> BaseException:
        if not isinstance(error, Exception):
            return error
        return of_kafka(error, doing, self.connection)


def encoding_of(headers: Iterable[tuple[str, bytes]]) -> Encoding:
    """The encoding that a record's headers name; MessagePack where they name none that is known."""
    for key, value in headers:
        if key == CONTENT_TYPE:
            return CONTENT_TYPES.get(value.decode("ascii", "replace"), "msgpack")
    return "msgpack"

"""Direct use of Kafka by the demo: an undecodable record, record counts, deletion of topics."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from inferd.daemon.demo.traffic import Rejection
from inferd.schemas.codecs import MSGPACK
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.errors import InferenceError, ServerError
from inferd.schemas.requests import Failure, decode_result, default_id
from inferd.schemas.topics import STREAMS, Stream, TenantTopics
from inferd.streams.connection import client_options

GARBAGE = b"this is not a request"
TIMEOUT_S = 20.0
POLL_MS = 200


async def send_garbage(connection: KafkaConnection, topics: TenantTopics) -> Rejection:
    """Sends an undecodable record; returns its error, whose id is the partition and offset of the record."""
    producer = AIOKafkaProducer(**client_options(connection))
    await producer.start()
    try:
        sent = await producer.send_and_wait(topics.name("requests"), GARBAGE)
    finally:
        await producer.stop()
    failure = await _failure_of(connection, topics.name("results"), default_id(sent.partition, sent.offset))
    return Rejection(f"bytes: {GARBAGE.decode()!r}", "malformed", failure.code, failure.message)


async def record_counts(
    connection: KafkaConnection, topics: TenantTopics, streams: Sequence[Stream]
) -> dict[Stream, int]:
    """The number of records written to each topic, from its end offsets."""
    counts: dict[Stream, int] = {}
    for stream in streams:
        async with _consumer(connection, topics.name(stream)) as consumer:
            counts[stream] = sum((await consumer.end_offsets(list(consumer.assignment()))).values())
    return counts


async def delete_topics(connection: KafkaConnection, topics: TenantTopics) -> None:
    """Deletes the tenant's topics."""
    admin = AIOKafkaAdminClient(**client_options(connection))
    await admin.start()
    try:
        await admin.delete_topics([topics.name(stream) for stream in STREAMS])
    finally:
        await admin.close()


async def _failure_of(connection: KafkaConnection, topic: str, request_id: str) -> Failure:
    deadline = time.monotonic() + TIMEOUT_S
    async with _consumer(connection, topic) as consumer:
        while time.monotonic() < deadline:
            for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                for record in records:
                    if (failure := _as_failure(record.value, request_id)) is not None:
                        return failure
    raise ServerError(f"no result for the request {request_id} within {TIMEOUT_S:.0f} s")


def _as_failure(value: bytes | None, request_id: str) -> Failure | None:
    if value is None or request_id.encode() not in value:
        return None
    try:
        result = decode_result(value, MSGPACK)
    except InferenceError:
        return None
    return result if isinstance(result, Failure) and result.id == request_id else None


@asynccontextmanager
async def _consumer(connection: KafkaConnection, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of the whole topic, without a consumer group."""
    consumer = AIOKafkaConsumer(
        topic, **client_options(connection), auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()

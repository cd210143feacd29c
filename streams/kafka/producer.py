"""Produces records in batches, each with a future of its acknowledgement."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError
from aiokafka.structs import RecordMetadata

from inferd.schemas.record_size import record_bytes
from inferd.streams.connection import client_options
from inferd.streams.inference import UnavailableError
from inferd.streams.kafka.outgoing import Outgoing, OutgoingBlock
from inferd.streams.kafka.written_batches import written_batches
from inferd.streams.settings import Compression, StreamSettings
from inferd.streams.tasks import cancelled, finished

BATCH_BYTES_MAX = 512 * 1024
CLOSE_TIMEOUT_S = 2.0


def producer_options(settings: StreamSettings) -> dict[str, Any]:
    """Options of every producer of a lane: idempotent, acknowledged by all in-sync replicas, no linger."""
    compression: Compression = settings.compression
    return {
        **client_options(settings.connection),
        "client_id": f"inferd-{settings.worker_id}",
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": 0,
        "max_batch_size": BATCH_BYTES_MAX,
        "compression_type": None if compression == "none" else compression,
        "request_timeout_ms": int(settings.group.request_timeout_s * 1000),
    }


async def open_producer(options: dict[str, Any], timeout_s: float, **more: Any) -> AIOKafkaProducer:
    """A started producer; raises `TimeoutError` or a `KafkaError` if it cannot start in time."""
    producer = AIOKafkaProducer(**options, **more)
    try:
        async with asyncio.timeout(timeout_s):
            await producer.start()
        _fail_after_a_failure(producer)
    except BaseException:
        await close_producer(producer)
        raise
    return producer


def _fail_after_a_failure(producer: AIOKafkaProducer) -> None:
    """Fails every batch of a partition that follows a failed one, so that records are never written out of order.

    After the failure the owner rewinds and replaces the producer; the new one sends the records again in order.
    """
    sender = producer._sender  # noqa: SLF001  (aiokafka would send the next batch)
    send: Callable[..., Awaitable[None]] = sender._send_produce_req  # noqa: SLF001
    failures: dict[TopicPartition, BaseException] = {}

    async def send_unless_failed(node_id: int, batches: Mapping[TopicPartition, Any]) -> None:
        for tp in batches.keys() & failures:
            batches[tp].failure(failures[tp])
            sender._muted_partitions.discard(tp)  # noqa: SLF001
        sendable = {tp: batch for tp, batch in batches.items() if tp not in failures}
        if sendable:
            await send(node_id, sendable)
        else:
            sender._in_flight.discard(node_id)  # noqa: SLF001
        failures.update((tp, error) for tp, batch in sendable.items() if (error := _failure(batch.future)) is not None)

    sender._send_produce_req = send_unless_failed  # type: ignore[method-assign]  # noqa: SLF001


def _failure(future: asyncio.Future[Any]) -> BaseException | None:
    if future.cancelled():
        return KafkaError("an earlier batch of the partition failed")
    return future.exception() if future.done() else None


async def close_producer(producer: AIOKafkaProducer) -> None:
    """Stops a producer within about `2 * CLOSE_TIMEOUT_S`, even if cancelled; drops undelivered records."""
    await finished(_stop(producer))


async def _stop(producer: AIOKafkaProducer) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await producer.stop()
    except Exception:  # noqa: BLE001  # The producer may be broken in any way.
        await _drop(producer)


async def _drop(producer: AIOKafkaProducer) -> None:
    """Closes the connections, ends the producer's tasks, and fails undelivered batches."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await producer.client.close()
    sender: asyncio.Task[None] | None = producer._sender.sender_task  # noqa: SLF001  (`stop` may have left it)
    if sender is not None:
        await cancelled([sender])
    producer._message_accumulator.fail_all(KafkaError("the producer was closed"))  # noqa: SLF001  (`stop` waits for it)


async def produce(
    producer: AIOKafkaProducer,
    topic: str,
    partition: int,
    records: Sequence[Outgoing],
    timestamp_ms: int,
    bytes_max: int = BATCH_BYTES_MAX,
) -> list[asyncio.Future[RecordMetadata]]:
    """Passes records to the producer in as few batches as possible; returns one future per batch.

    `bytes_max`: maximum size of a batch of several records. Waits while an earlier batch of the partition is unsent.
    Raises `KafkaTimeoutError` and other `KafkaError`s; earlier batches may still be delivered.
    """
    return [future for future, _ in await _send(producer, topic, partition, records, timestamp_ms, bytes_max)]


async def produce_changes(
    producer: AIOKafkaProducer,
    topic: str,
    partition: int,
    changes: Sequence[tuple[bytes, bytes | None]],
    timestamp_ms: int,
    bytes_max: int = BATCH_BYTES_MAX,
) -> list[tuple[asyncio.Future[RecordMetadata], int]]:
    """Like `produce`, to a changelog; each future comes with the number of records in its batch."""
    records: list[Outgoing] = [(key, value, []) for key, value in changes]
    return await _send(producer, topic, partition, records, timestamp_ms, bytes_max)


async def _send(
    producer: AIOKafkaProducer,
    topic: str,
    partition: int,
    records: Sequence[Outgoing],
    timestamp_ms: int,
    bytes_max: int,
) -> list[tuple[asyncio.Future[RecordMetadata], int]]:
    return [
        (await _send_batch(producer, batch, topic, partition), count)
        for batch, count in _filled(producer, records, timestamp_ms, bytes_max)
    ]


def fill_batches(
    producer: AIOKafkaProducer, records: Sequence[Outgoing], timestamp_ms: int, bytes_max: int = BATCH_BYTES_MAX
) -> list[Any]:
    """The batches that `produce` would send; may be called in a thread."""
    return [batch for batch, _ in _filled(producer, records, timestamp_ms, bytes_max)]


async def send_batches(
    producer: AIOKafkaProducer, topic: str, partition: int, batches: Sequence[Any]
) -> list[asyncio.Future[RecordMetadata]]:
    """Passes filled batches to the producer; otherwise as `produce`."""
    return [await _send_batch(producer, batch, topic, partition) for batch in batches]


def _filled(
    producer: AIOKafkaProducer, records: Sequence[Outgoing], timestamp_ms: int, bytes_max: int
) -> Iterator[tuple[Any, int]]:
    """Closed batches, each with its number of records."""
    if isinstance(records, OutgoingBlock):
        with contextlib.suppress(UnavailableError):
            yield from written_batches(producer, records, timestamp_ms, min(bytes_max, BATCH_BYTES_MAX))
            return
    start = 0
    while start < len(records):
        batch = producer.create_batch()
        # The producer's own limit applies to topics with larger ones.
        fitting = records if bytes_max >= BATCH_BYTES_MAX else records[: _fitting(records, start, bytes_max)]
        end = _fill(batch.append, fitting, start, timestamp_ms)
        batch.close()
        yield batch, end - start
        start = end


def _fitting(records: Sequence[Outgoing], start: int, bytes_max: int) -> int:
    """Index of the first record from `start` on that does not fit into a batch of `bytes_max`; at least one does."""
    size = 0
    for index in range(start, len(records)):
        size += record_bytes(*records[index])
        if size > bytes_max and index > start:
            return index
    return len(records)


async def _send_batch(
    producer: AIOKafkaProducer, batch: Any, topic: str, partition: int
) -> asyncio.Future[RecordMetadata]:
    """Like `send_batch`, but raises `UnknownTopicOrPartitionError` for a missing partition instead of asserting."""
    future: asyncio.Future[RecordMetadata]
    try:
        future = await producer.send_batch(batch, topic, partition=partition)
    except AssertionError:
        await producer.client.force_metadata_update()  # It may have been added since the last metadata update.
        try:
            future = await producer.send_batch(batch, topic, partition=partition)
        except AssertionError:
            raise UnknownTopicOrPartitionError(f"there is no partition {partition} of {topic}") from None
    return future


def _fill(append: Any, records: Sequence[Outgoing], start: int, timestamp_ms: int) -> int:
    """Appends records until the batch is full; returns the index of the first one that did not fit."""
    for index in range(start, len(records)):
        key, value, headers = records[index]
        if append(timestamp=timestamp_ms, key=key, value=value, headers=headers) is None:
            if index == start:
                raise ValueError(f"record {index} finds no room in an empty batch")
            return index
    return len(records)

"""Reads a topic up to its current end, without a consumer group and without commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from inferd.daemon.cluster import metadata
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.errors import ServerError
from inferd.streams.connection import client_options

PROGRESS_TIMEOUT_S = 15.0
POLL_MS = 500
Record = ConsumerRecord[bytes | None, bytes | None]
Range = tuple[int, int]
"""First offset, and end offset (exclusive)."""


class TopicReader:
    """A consumer on every partition of one topic."""

    def __init__(self, consumer: AIOKafkaConsumer, topic: str, partitions: list[TopicPartition]) -> None:
        self._consumer = consumer
        self.topic = topic
        self.partitions = partitions

    async def ranges(self) -> dict[TopicPartition, Range]:
        """The current range of each partition."""
        first = await self._consumer.beginning_offsets(self.partitions)
        end = await self._consumer.end_offsets(self.partitions)
        return {tp: (first[tp], end[tp]) for tp in self.partitions}

    async def read(self, ranges: dict[TopicPartition, Range]) -> AsyncGenerator[Record, None]:
        """Every record of these ranges, partition by partition. Raises `ServerError` if there is no progress."""
        for tp, (first, end) in ranges.items():
            if first >= end:
                continue
            self._consumer.assign([tp])
            self._consumer.seek(tp, first)
            async for record in self._read_one(tp, end):
                yield record

    async def _read_one(self, tp: TopicPartition, end: int) -> AsyncIterator[Record]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PROGRESS_TIMEOUT_S
        # Compare positions, not record offsets: transaction markers and compaction leave gaps.
        while (position := await self._consumer.position(tp)) < end:
            for record in (await self._consumer.getmany(tp, timeout_ms=POLL_MS)).get(tp, []):
                if record.offset < end:
                    yield record
            if await self._consumer.position(tp) > position:
                deadline = loop.time() + PROGRESS_TIMEOUT_S
            elif loop.time() > deadline:
                raise ServerError(
                    f"no progress in {self.topic} partition {tp.partition}: at offset {position} of {end}"
                )


@asynccontextmanager
async def open_topic(connection: KafkaConnection, topic: str) -> AsyncIterator[TopicReader]:
    """A `read_committed` reader of `topic`. Raises `ServerError` if there is no such topic."""
    # A metadata request by name would create the topic on brokers with auto.create.topics.enable.
    partitions = sorted((await metadata(connection)).partitions_for_topic(topic) or ())
    if not partitions:
        raise ServerError(f"topic {topic} does not exist: run `inferd topics create`, or check namespace and tenant")
    consumer = AIOKafkaConsumer(
        **client_options(connection), client_id="inferd", enable_auto_commit=False, isolation_level="read_committed"
    )
    try:
        await consumer.start()
        yield TopicReader(consumer, topic, [TopicPartition(topic, number) for number in partitions])
    finally:
        await consumer.stop()

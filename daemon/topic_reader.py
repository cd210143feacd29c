"""Reading a topic from the command line: no group, nothing committed, up to where the log ends now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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
"""First offset that is there, and the one behind the last."""


class TopicReader:
    """A consumer on every partition of one topic."""

    def __init__(self, consumer: AIOKafkaConsumer, topic: str, partitions: list[TopicPartition]) -> None:
        self._consumer = consumer
        self.topic = topic
        self.partitions = partitions

    async def ranges(self) -> dict[TopicPartition, Range]:
        """What each partition holds now."""
        first = await self._consumer.beginning_offsets(self.partitions)
        end = await self._consumer.end_offsets(self.partitions)
        return {tp: (first[tp], end[tp]) for tp in self.partitions}

    async def read(self, ranges: dict[TopicPartition, Range]) -> AsyncIterator[Record]:
        """Every record of these ranges, partition by partition; `ServerError` where the broker stops sending them."""
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
        # The position, not the records, tells the end: markers of transactions and compaction leave gaps.
        while (position := await self._consumer.position(tp)) < end:
            for record in (await self._consumer.getmany(tp, timeout_ms=POLL_MS)).get(tp, []):
                if record.offset < end:
                    yield record
            if await self._consumer.position(tp) > position:
                deadline = loop.time() + PROGRESS_TIMEOUT_S
            elif loop.time() > deadline:
                raise ServerError(f"{self.topic} partition {tp.partition} stops at offset {position}, before {end}")


@asynccontextmanager
async def open_topic(connection: KafkaConnection, topic: str) -> AsyncIterator[TopicReader]:
    """A reader of `topic`; `ServerError` where there is no such topic. Sees only what was committed."""
    # Asked for by name, a topic that is not there would be created by brokers that create topics on their own.
    partitions = sorted((await metadata(connection)).partitions_for_topic(topic) or ())
    if not partitions:
        raise ServerError(f"topic {topic} is not there: run `inferd topics create`, or check namespace and tenant")
    consumer = AIOKafkaConsumer(
        **client_options(connection), client_id="inferd", enable_auto_commit=False, isolation_level="read_committed"
    )
    try:
        await consumer.start()
        yield TopicReader(consumer, topic, [TopicPartition(topic, number) for number in partitions])
    finally:
        await consumer.stop()

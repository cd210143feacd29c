"""Records of one partition of a topic, for people who look at them: a page at a time, bounded in records and bytes."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from aiokafka import TopicPartition

from inferd.daemon.topic_reader import Range, Record, TopicReader, open_topic
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.errors import ServerError

PAGE_BYTES_MAX = 1_048_576


class NoPartitionError(ServerError):
    """The topic has no partition of this number."""


@dataclass(frozen=True, slots=True)
class RecordsPage:
    """Records in the order of their offsets, and where they are in the partition."""

    partitions: int
    """Of the topic."""
    held: Range
    records: list[Record]
    next_offset: int
    """Where the next page begins; the end of the partition if there is no more."""


async def read_page(
    connection: KafkaConnection, topic: str, partition: int, start: int | None, limit: int
) -> RecordsPage:
    """At most `limit` committed records from the offset `start` (None: those at the end), and at most some more than
    `PAGE_BYTES_MAX`. Transaction markers and compaction leave gaps between offsets, so that there may be fewer.

    Raises `NoPartitionError`, and `ServerError` without the topic.
    """
    async with open_topic(connection, topic) as reader:
        found = {tp.partition: tp for tp in reader.partitions}
        if partition not in found:
            raise NoPartitionError(f"{topic} has no partition {partition}: its partitions are 0 to {len(found) - 1}")
        tp = found[partition]
        first, end = (await reader.ranges())[tp]
        begin = min(end, max(first, end - limit if start is None else start))
        records = await _records(reader, {tp: (begin, end)}, limit)
    full = len(records) == limit or _bytes_of(records) >= PAGE_BYTES_MAX
    next_offset = records[-1].offset + 1 if records and full else end
    return RecordsPage(len(found), (first, end), records, next_offset)


async def _records(reader: TopicReader, ranges: dict[TopicPartition, Range], limit: int) -> list[Record]:
    records: list[Record] = []
    read_bytes = 0
    async with aclosing(reader.read(ranges)) as source:
        async for record in source:
            records.append(record)
            read_bytes += _size(record)
            if len(records) == limit or read_bytes >= PAGE_BYTES_MAX:
                break
    return records


def _bytes_of(records: list[Record]) -> int:
    return sum(map(_size, records))


def _size(record: Record) -> int:
    return len(record.key or b"") + len(record.value or b"")

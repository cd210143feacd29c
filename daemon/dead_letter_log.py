"""Reads the topic `dead-letters` of a tenant."""

from __future__ import annotations

from collections import defaultdict, deque

from inferd.daemon.dead_letter_entries import Entry
from inferd.daemon.topic_reader import Range, open_topic
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.errors import ServerError


class NoDeadLetterError(ServerError):
    """The topic has no record at this partition and offset."""


async def read_entries(
    connection: KafkaConnection, topic: str, last: int | None, code: str | None, read_max: int | None = None
) -> list[Entry]:
    """The newest `last` (None: all) records with the code (None: any), ordered by timestamp.

    Of each partition, at most the newest `read_max` are looked at (None: all). Raises `ServerError` without the topic.
    """
    newest_only = last if code is None else read_max
    async with open_topic(connection, topic) as reader:
        ranges = await reader.ranges()
        if newest_only is not None:
            ranges = {tp: (max(first, end - newest_only), end) for tp, (first, end) in ranges.items()}
        newest: dict[int, deque[Entry]] = defaultdict(lambda: deque(maxlen=last))
        async for record in reader.read(ranges):
            entry = Entry.of(record, with_value=False)
            if code is None or (entry.letter and entry.letter.code == code):
                newest[entry.partition].append(entry)
    entries = [entry for found in newest.values() for entry in found]
    entries.sort(key=lambda entry: (entry.timestamp_ms, entry.partition, entry.offset))
    return entries if last is None else entries[-last:]


async def read_entry(connection: KafkaConnection, topic: str, partition: int, offset: int) -> Entry:
    """One record with its value; raises `NoDeadLetterError`."""
    async with open_topic(connection, topic) as reader:
        ranges = {tp.partition: (tp, held) for tp, held in (await reader.ranges()).items()}
        if partition not in ranges:
            raise NoDeadLetterError(
                f"{reader.topic} has no partition {partition}: its partitions are 0 to {len(ranges) - 1}"
            )
        tp, held = ranges[partition]
        if held[0] <= offset < held[1]:
            async for record in reader.read({tp: (offset, offset + 1)}):
                return Entry.of(record, with_value=True)
        raise NoDeadLetterError(_no_record(reader.topic, partition, offset, held))


def _no_record(topic: str, partition: int, offset: int, held: Range) -> str:
    first, end = held
    content = f"has offsets {first} to {end - 1}" if end > first else "is empty"
    return f"{topic} has no record at {partition}:{offset}: the partition {content}"

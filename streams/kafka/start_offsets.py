"""Start offsets of the partitions that a group was assigned."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from inferd.streams.kafka.retention_gaps import log_missing_records
from inferd.streams.kafka.topic_watch import KnownTopics

log = structlog.get_logger(__name__)

Reset = Literal["earliest", "latest"]
NOTE = "topic-id="


class PastTheEndError(KafkaError):
    """The committed offset is past the end of the log."""


@dataclass(frozen=True, slots=True)
class Position:
    """The offset to start from, and how many offsets after the committed one retention has deleted."""

    start: int
    end: int
    missing: int = 0


def offset_metadata(topic_id: str) -> str:
    """Metadata committed with an offset: the id of its topic."""
    return f"{NOTE}{topic_id}" if topic_id else ""


def is_from_deleted_topic(note: str, topic_id: str) -> bool:
    """Whether an offset was committed for a deleted topic of the same name."""
    return bool(topic_id) and note.startswith(NOTE) and note != offset_metadata(topic_id)


def position_of(committed: int | None, beginning: int, end: int, reset: Reset) -> Position:
    """Goes on at the committed offset where the log still has it.

    Without one, at the beginning or the end as `reset` says. Retention that overtook it leaves a gap, which is named.
    Raises `PastTheEndError` for an offset past the end: a new leader may tell a shorter log for a moment, and starting
    anew then would repeat all of it.
    """
    if committed is None:
        return Position(beginning if reset == "earliest" else end, end)
    if committed < beginning:
        return Position(beginning, end, missing=beginning - committed)
    if committed > end:
        raise PastTheEndError(f"offset {committed} is committed, and the log ends at {end}")
    return Position(committed, end)


async def read_positions(
    consumer: AIOKafkaConsumer, tps: Collection[TopicPartition], reset: Reset, topics: KnownTopics
) -> dict[TopicPartition, Position]:
    """Positions of `tps`; asked of the broker now, so that they are read after whatever was fenced before.

    An offset that was committed for an earlier topic of the same name means nothing, and `reset` is for logs that were
    there when the worker started: what is in a new one was never read. `PastTheEndError` naming the partition and what
    to do; other `KafkaError`s where the broker does not answer.
    """
    asked = list(tps)
    # `consumer.committed` gives the offset without what was committed with it.
    coordinator: Any = consumer._coordinator  # noqa: SLF001
    committed = await coordinator.fetch_committed_offsets(asked)
    beginnings, ends = await asyncio.gather(consumer.beginning_offsets(asked), consumer.end_offsets(asked))
    positions = {}
    reset_here: Reset
    for tp in asked:
        offset, note = committed.get(tp) or (None, "")
        if offset is not None and is_from_deleted_topic(note, topics.id_of(tp.topic)):
            log.warning("offset_of_a_deleted_topic", topic=tp.topic, partition=tp.partition, committed=offset)
            offset, reset_here = None, "earliest"
        else:
            reset_here = "earliest" if topics.is_new(tp) else reset
        positions[tp] = _position(tp, offset, beginnings[tp], ends[tp], reset_here)
    for tp, position in positions.items():
        if position.missing:
            log_missing_records(tp, position.start - position.missing, position.missing)
    return positions


def _position(tp: TopicPartition, committed: int | None, beginning: int, end: int, reset: Reset) -> Position:
    try:
        return position_of(committed, beginning, end, reset)
    except PastTheEndError as error:
        raise PastTheEndError(
            f"{tp.topic}/{tp.partition}: {error.args[0]}; if the topic was deleted and created again, commit the new"
            " log's first offset for this group (docs/operations.md#offsets); do not change INFERD_GROUP_ID, which"
            " names the changelogs of jobs"
        ) from None

"""Start offsets of assigned partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from inferd.streams.kafka.retention_gaps import log_missing_records
from inferd.streams.kafka.topic_watch import KnownTopics

log = structlog.get_logger(__name__)

Reset = Literal["earliest", "latest"]
TOPIC_ID, PARTITIONS = "topic-id=", "partitions="
"""Of metadata of offsets. Versions before this one ignore metadata that does not begin with a topic id."""


class PastTheEndError(KafkaError):
    """The committed offset is past the end of the log."""


@dataclass(frozen=True, slots=True)
class Position:
    """The start offset, and the number of offsets after the committed one that retention has deleted."""

    start: int
    end: int
    missing: int = 0


def offset_metadata(topic_id: str, partitions: int = 0) -> str:
    """Metadata committed with an offset: the id of its topic, and the number of partitions that
    `noted_partitions.py` is about (0: none)."""
    noted = [f"{PARTITIONS}{partitions}"] if partitions else []
    return " ".join([*noted, *([f"{TOPIC_ID}{topic_id}"] if topic_id else [])])


def is_from_deleted_topic(note: str, topic_id: str) -> bool:
    """Whether an offset was committed for a deleted topic of the same name."""
    return bool(topic_id) and _noted(note, TOPIC_ID) not in ("", topic_id)


def partitions_noted_in(note: str) -> int:
    """The number of partitions in the metadata of an offset; 0 if there is none."""
    found = _noted(note, PARTITIONS)
    return int(found) if found.isdecimal() else 0


def _noted(note: str, what: str) -> str:
    return next((part.removeprefix(what) for part in note.split() if part.startswith(what)), "")


async def committed(
    consumer: AIOKafkaConsumer, tps: Collection[TopicPartition], topics: KnownTopics
) -> set[TopicPartition]:
    """Those of `tps` for which the group has an offset, of the topic that exists now. Raises `KafkaError`."""
    coordinator: Any = consumer._coordinator  # noqa: SLF001  (`consumer.committed` drops the metadata)
    found = {tp: each for tp, each in (await coordinator.fetch_committed_offsets(list(tps))).items() if each[0] >= 0}
    return {tp for tp, (_, note) in found.items() if not is_from_deleted_topic(note, topics.id_of(tp.topic))}


def position_of(committed: int | None, beginning: int, end: int, reset: Reset) -> Position:
    """Starts at the committed offset if it is still in the log; without one, at the beginning or end according to
    `reset`.

    Offsets deleted by retention are reported as missing. Raises `PastTheEndError` for an offset past the end: a new
    leader may briefly report a shorter log, and starting over would repeat all of it.
    """
    if committed is None:
        return Position(beginning if reset == "earliest" else end, end)
    if committed < beginning:
        return Position(beginning, end, missing=beginning - committed)
    if committed > end:
        raise PastTheEndError(f"offset {committed} is committed, and the log ends at {end}")
    return Position(committed, end)


async def read_positions(
    consumer: AIOKafkaConsumer, first: Mapping[TopicPartition, int | None], reset: Reset, topics: KnownTopics
) -> dict[TopicPartition, Position]:
    """Start positions of partitions, read from the broker now, after the fence.

    `first`: by partition, the first offset if none is committed; None: by `reset`.

    An offset committed for a deleted topic of the same name is ignored. `reset` applies to logs that existed when the
    worker started; newer logs are read from their beginning. Raises `PastTheEndError` with partition and remedy, and
    other `KafkaError`s if the broker does not answer.
    """
    asked = list(first)
    # `consumer.committed` returns the offset without its metadata.
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
            if offset is None and (start := first[tp]) is not None:
                # The log is shorter than it was: the topic was created again since.
                offset, reset_here = (start, reset) if start <= ends[tp] else (None, "earliest")
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

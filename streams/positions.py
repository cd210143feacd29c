"""Where a group goes on in the partitions it was given."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.gaps import name_missing


class PastTheEndError(KafkaError):
    """The group has committed more than the log holds."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where to go on, and how many offsets the log no longer has between there and what was committed."""

    start: int
    end: int
    missing: int = 0


def position_of(committed: int | None, beginning: int, end: int, reset: Literal["earliest", "latest"]) -> Position:
    """Goes on at the committed offset where the log still has it.

    Without one, at the beginning or the end as `reset` says. Retention that overtook it leaves a gap, which is named.
    Raises `PastTheEndError` for an offset past the end: a new leader may tell a shorter log for a moment, and starting
    anew then would repeat all of it. Where it lasts, the topic was deleted and made again, and somebody must say so.
    """
    if committed is None:
        return Position(beginning if reset == "earliest" else end, end)
    if committed < beginning:
        return Position(beginning, end, missing=beginning - committed)
    if committed > end:
        raise PastTheEndError(f"offset {committed} is committed, and the log ends at {end}")
    return Position(committed, end)


async def read_positions(
    consumer: AIOKafkaConsumer, tps: Collection[TopicPartition], reset: Literal["earliest", "latest"]
) -> dict[TopicPartition, Position]:
    """Positions of `tps`; asked of the broker now, so that they are read after whatever was fenced before.

    `PastTheEndError` naming the partition and what to do; other `KafkaError`s where the broker does not answer.
    """
    asked = list(tps)
    committed = dict(zip(asked, await asyncio.gather(*map(consumer.committed, asked)), strict=True))
    beginnings, ends = await asyncio.gather(consumer.beginning_offsets(asked), consumer.end_offsets(asked))
    positions = {}
    for tp in asked:
        try:
            positions[tp] = position_of(committed[tp], beginnings[tp], ends[tp], reset)
        except PastTheEndError as error:
            raise PastTheEndError(
                f"{tp.topic}/{tp.partition}: {error.args[0]}; if the topic was deleted and created again, reset the"
                " group's offsets (kafka-consumer-groups --reset-offsets) or set another INFERD_GROUP_ID"
            ) from None
    for tp, position in positions.items():
        if position.missing:
            name_missing(tp, position.start - position.missing, position.missing)
    return positions

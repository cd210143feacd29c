"""Moves the states of ids to a partition when it is first used, from the partitions where they were before.

The worker that is assigned a new partition opens the transactional producer of the older one. That fences the owner of
the older one, so that nothing else changes its states. Transactions then write the states that move to the changelog of
the new partition, and their tombstones to that of the older one; the last one commits offset 0 of the new partition,
which says that it has its states. The fenced owner fails at its next transaction, restores its table, no longer finds
the states, and sends their records on.

A worker that dies in between leaves each state in one of the two places, and the next one continues. Two workers that
do it at the same time fence each other: the later one moves what is left, or finds the committed offset.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from inferd.streams.kafka import (
    Destinations,
    KnownTopics,
    Outgoing,
    ancestors,
    belongs,
    committed,
    unit_of,
)
from inferd.streams.lane.exactly_once import ExactlyOnce
from inferd.streams.settings import StreamSettings
from inferd.streams.state import LaneTable, MemoryStore, Restore, TablePartition
from inferd.streams.telemetry import LaneMeasures

log = structlog.get_logger(__name__)

TRANSACTION_BYTES = 4 * 1_048_576
"""Bytes of states that move in one transaction; the last one has the offset."""
RECORD_BYTES = 100

Written = Mapping[tuple[str, int], Sequence[Outgoing]]
"""Records by topic and partition."""
Outputs = Callable[[TopicPartition], Collection[TopicPartition]]
"""What the owner of a partition writes to."""


@dataclass(frozen=True, slots=True)
class Move:
    """What is written when the state of an id moves."""

    value: bytes
    """The state, as it is in the new partition."""
    also: tuple[tuple[str, int, Outgoing], ...] = ()
    """(topic, partition, record)."""


@dataclass(frozen=True, slots=True)
class KeyedTable:
    """A table whose partition is the hash of an id, and the topics whose records change it."""

    table: LaneTable
    topics: tuple[str, ...]
    move: Callable[[bytes, bytes, int, int], Move | None]
    """(id, state, old partition, new partition); None if it cannot be moved."""
    used: Callable[[], int]
    """How many partitions are used."""


class Handover:
    """Fills new partitions of some tables."""

    def __init__(
        self,
        settings: StreamSettings,
        topics: KnownTopics,
        tables: Iterable[KeyedTable],
        destinations: Destinations,
    ) -> None:
        self._base = settings.topics.partitions
        self._group_id = settings.group.group_id
        self._topics = topics
        self._tables = {topic: keyed for keyed in tables for topic in keyed.topics}
        self._done: set[TopicPartition] = set()
        """Of the first topic of a table: partitions that have their states."""
        self._seen: dict[TopicPartition, set[TopicPartition]] = {}
        """Of the first topic of a table, by partition: the new partitions that had their states when it was taken over
        last."""
        self._once = ExactlyOnce(settings, LaneMeasures(), lambda *_: None, unit_of, destinations)
        self._restore = Restore(settings, lambda: None)

    async def run(self, tps: Collection[TopicPartition], outputs: Outputs, consumer: AIOKafkaConsumer) -> None:
        """Returns when those of `tps` that are new have their states; raises what Kafka raises. `consumer`: of the
        group."""
        new = {tp for tp in tps if tp.topic in self._tables and tp.partition >= self._base}
        for first in sorted({TopicPartition(self._tables[tp.topic].topics[0], tp.partition) for tp in new}):
            if first not in self._done:
                await self._fill(self._tables[first.topic], first, outputs, consumer)
                self._done.add(first)
        owned = {tp for tp in tps if tp.topic in self._tables and tp.topic == self._tables[tp.topic].topics[0]}
        heirs = {tp: self._heirs(tp) for tp in owned}
        filled = await self._filled(heirs.values(), consumer)
        self._seen |= {tp: of & filled for tp, of in heirs.items()}

    async def left(self, tps: Collection[TopicPartition], consumer: AIOKafkaConsumer) -> set[str]:
        """Topics with a partition among `tps` that lost states since it was taken over: it is to be taken over again.

        Its owner is fenced, but notices only when it writes; until then it would answer from the old states.
        """
        left = {tp: self._heirs(tp) - self._seen[tp] for tp in self._seen.keys() & set(tps)}
        filled = await self._filled(left.values(), consumer)
        return {tp.topic for tp, of in left.items() if of & filled}

    def _heirs(self, tp: TopicPartition) -> set[TopicPartition]:
        """The new partitions that get states from a partition."""
        numbers = range(self._base, self._tables[tp.topic].used())
        return {TopicPartition(tp.topic, n) for n in numbers if tp.partition in ancestors(n, self._base)}

    async def _filled(
        self, asked: Iterable[Collection[TopicPartition]], consumer: AIOKafkaConsumer
    ) -> set[TopicPartition]:
        tps = {tp for each in asked for tp in each}
        return await committed(consumer, tps, self._topics) if tps else set()

    def forget(self, topic: str) -> None:
        """A topic was created again."""
        self._done = {tp for tp in self._done if topic not in self._tables[tp.topic].topics}

    async def _fill(
        self, keyed: KeyedTable, first: TopicPartition, outputs: Outputs, consumer: AIOKafkaConsumer
    ) -> None:
        tps = [TopicPartition(topic, first.partition) for topic in keyed.topics]

        async def is_filled() -> bool:
            return first in await committed(consumer, [first], self._topics)

        # The earliest first: states move from earlier partitions to later ones, also in other handovers meanwhile.
        places = ancestors(first.partition, self._base)[::-1]
        for old in places:
            if await is_filled():
                return
            began, fenced = time.monotonic(), TopicPartition(first.topic, old)
            try:
                await self._once.fence(
                    {fenced: {each for t in keyed.topics for each in outputs(TopicPartition(t, old))}}
                )
                if await is_filled():
                    return
                moving = await self._moving(keyed, old, first.partition)
                for part in _parts(moving):
                    await self._once.write(fenced, _written(keyed, part, old, first.partition), {})
                if old == places[-1]:
                    zero = {tp: self._once.offset_of(tp, 0, self._topics.id_of(tp.topic)) for tp in tps}
                    await self._once.write(fenced, {}, zero)
            finally:
                await self._once.release([fenced])
            log.info(
                "states_moved", table=keyed.table.name, partition=first.partition, before=old, states=len(moving),
                ms=round((time.monotonic() - began) * 1000),
            )  # fmt: skip

    async def _moving(self, keyed: KeyedTable, old: int, new: int) -> list[tuple[bytes, Move]]:
        """The states of partition `old` that belong to partition `new`."""
        store = MemoryStore()
        await self._restore.run([(keyed.table, TablePartition(keyed.table.changelog, old, store))])
        found: list[tuple[bytes, Move]] = []
        for key, value in store.items():
            if belongs(key, new, self._base) and (move := keyed.move(key, value, old, new)) is not None:
                found.append((key, move))
            if len(found) % 1_000 == 999:
                await asyncio.sleep(0)
        return found


def _parts(moving: Sequence[tuple[bytes, Move]]) -> Iterator[list[tuple[bytes, Move]]]:
    """Parts of at most `TRANSACTION_BYTES`."""
    part, n_bytes = list[tuple[bytes, Move]](), 0
    for key, move in moving:
        part.append((key, move))
        n_bytes += len(key) + len(move.value) + RECORD_BYTES
        if n_bytes >= TRANSACTION_BYTES:
            yield part
            part, n_bytes = [], 0
    if part:
        yield part


def _written(keyed: KeyedTable, part: Sequence[tuple[bytes, Move]], old: int, new: int) -> Written:
    changelog = keyed.table.changelog
    written: dict[tuple[str, int], list[Outgoing]] = {
        (changelog, new): [(key, move.value, []) for key, move in part],
        (changelog, old): [(key, None, []) for key, _ in part],
    }
    for _, move in part:
        for topic, number, outgoing in move.also:
            written.setdefault((topic, number), []).append(outgoing)
    return written

"""The committed offsets of a consumer group: read, and moved while the group has no members."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from inferd.cluster import FAULTS, offsets_since
from inferd.errors import TopicNotFoundError, typed_kafka_error
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.errors import InvalidValueError, ServerError
from inferd.streams.connection import client_options

EMPTY = ("Empty", "Dead", "")
"""States of a group without members."""
MEMBERS_SHOWN = 5


class GroupHasMembersError(ServerError):
    """Offsets are not moved while workers of the group are running."""


@dataclass(frozen=True, slots=True)
class PartitionOffsets:
    """One partition as a group reads it."""

    topic: str
    partition: int
    committed: int | None
    """The next offset to read; None if none was committed."""
    first: int
    """The first offset of the log."""
    end: int

    @property
    def lag(self) -> int | None:
        """Offsets that are not committed yet; None if none was committed."""
        return None if self.committed is None else max(0, self.end - max(self.committed, self.first))


@dataclass(frozen=True, slots=True)
class Destination:
    """Where offsets are moved to: exactly one of the fields is given."""

    earliest: bool = False
    latest: bool = False
    time: datetime | None = None
    """The first record since then."""
    offset: int | None = None
    shift: int | None = None
    """Relative to the committed offset."""

    def __post_init__(self) -> None:
        given = [self.earliest, self.latest, self.time is not None, self.offset is not None, self.shift is not None]
        if sum(given) != 1:
            raise InvalidValueError("name exactly one destination: earliest, latest, a time, an offset or a shift")

    def of(self, partition: PartitionOffsets, since: int | None) -> int:
        """The new offset of a partition, within its log. `since`: that of the first record since `time`; None: there
        is none. `InvalidValueError` for a shift of a partition without a committed offset."""
        if self.earliest:
            return partition.first
        if self.latest:
            return partition.end
        if self.time is not None:
            return partition.end if since is None else since
        wanted = self.offset
        if self.shift is not None:
            if partition.committed is None:
                place = f"{partition.topic} {partition.partition}"
                raise InvalidValueError(f"{place} has no committed offset that could be shifted")
            wanted = partition.committed + self.shift
        assert wanted is not None, "one destination is given"
        return min(max(wanted, partition.first), partition.end)


class GroupOffsets:
    """The offsets of one consumer group."""

    def __init__(self, connection: KafkaConnection, group: str) -> None:
        self._connection, self.group = connection, group

    async def show(self, topics: Sequence[str] = ()) -> list[PartitionOffsets]:
        """Partitions with a committed offset, and all partitions of `topics`, in order; `TopicNotFoundError`."""
        async with self._admin() as admin:
            committed = {tp: each.offset for tp, each in (await admin.list_consumer_group_offsets(self.group)).items()}
            wanted = {tp for tp, offset in committed.items() if offset >= 0}
            # Deleted topics may still have offsets.
            known = set(await admin.list_topics())
            wanted = {tp for tp in wanted if tp.topic in known}
            if missing := [topic for topic in topics if topic not in known]:
                raise TopicNotFoundError(f"topic {missing[0]} does not exist")
            if topics:
                for described in await admin.describe_topics(list(topics)):
                    wanted |= {
                        TopicPartition(described["topic"], each["partition"]) for each in described["partitions"]
                    }
        async with self._consumer() as consumer:
            return await self._partitions(consumer, sorted(wanted), committed)

    async def members(self) -> list[str]:
        """Client ids and hosts of the group's members."""
        async with self._admin() as admin:
            response: Any
            (response,) = await admin.describe_consumer_groups([self.group])
            (_, _, state, _, _, members, *_) = response.groups[0]
            if (state or "") in EMPTY:
                return []
            return sorted(f"{client_id} on {host.lstrip('/')}" for _, client_id, host, *_ in members) or [state]

    async def plan(
        self, topic: str, partitions: Sequence[int], destination: Destination
    ) -> list[tuple[PartitionOffsets, int]]:
        """What a reset of `partitions` of a topic (none: all) would do: each with its new offset.

        `TopicNotFoundError`, `InvalidValueError` for a partition that it does not have.
        """
        shown = {each.partition: each for each in await self.show([topic]) if each.topic == topic}
        for number in partitions:
            if number not in shown:
                raise InvalidValueError(f"topic {topic} has no partition {number}: it has {len(shown)}")
        chosen = [shown[number] for number in sorted(partitions or shown)]
        since: dict[int, int] = {}
        if destination.time is not None:
            since = await self._since(topic, [each.partition for each in chosen], destination.time)
        return [(each, destination.of(each, since.get(each.partition))) for each in chosen]

    async def commit(self, plan: Sequence[tuple[PartitionOffsets, int]]) -> None:
        """Commit the offsets of a plan; `GroupHasMembersError` while workers run."""
        if members := await self.members():
            raise _has_members(self.group, members)
        async with self._consumer(self.group) as consumer:
            offsets = {TopicPartition(each.topic, each.partition): offset for each, offset in plan}
            consumer.assign(list(offsets))
            try:
                await consumer.commit(offsets)
            except KafkaError as error:
                if members := await self.members():
                    raise _has_members(self.group, members) from error
                raise

    async def _since(self, topic: str, numbers: Sequence[int], time: datetime) -> dict[int, int]:
        tps = [TopicPartition(topic, number) for number in numbers]
        async with self._consumer() as consumer:
            consumer.assign(tps)
            return {tp.partition: offset for tp, offset in (await offsets_since(consumer, tps, time)).items()}

    async def _partitions(
        self, consumer: AIOKafkaConsumer, tps: Sequence[TopicPartition], committed: Mapping[TopicPartition, int]
    ) -> list[PartitionOffsets]:
        if not tps:
            return []
        consumer.assign(list(tps))
        firsts, ends = await asyncio.gather(consumer.beginning_offsets(tps), consumer.end_offsets(tps))
        found = {tp: committed.get(tp, -1) for tp in tps}
        return [
            PartitionOffsets(tp.topic, tp.partition, None if found[tp] < 0 else found[tp], firsts[tp], ends[tp])
            for tp in tps
        ]

    @asynccontextmanager
    async def _consumer(self, group: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            **client_options(self._connection), client_id="inferd-offsets", group_id=group, enable_auto_commit=False
        )
        try:
            await consumer.start()
            yield consumer
        except FAULTS as error:
            raise typed_kafka_error(error, f"offsets of {self.group}", self._connection) from error
        finally:
            await consumer.stop()

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(**client_options(self._connection), client_id="inferd-offsets")
        try:
            await admin.start()
            yield admin
        except FAULTS as error:
            raise typed_kafka_error(error, f"offsets of {self.group}", self._connection) from error
        finally:
            await admin.close()


def _has_members(group: str, members: Sequence[str]) -> GroupHasMembersError:
    more = f" and {len(members) - MEMBERS_SHOWN} more" if len(members) > MEMBERS_SHOWN else ""
    return GroupHasMembersError(
        f"group {group} has members ({', '.join(members[:MEMBERS_SHOWN])}{more}): stop all workers of the group first."
        " Nothing was changed"
    )

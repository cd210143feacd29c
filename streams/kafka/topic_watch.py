"""Watches the topics that a worker reads and writes: deleted, recreated and grown topics are noticed within seconds.

Kafka notifies consumers and producers of none of this. Only the topic id shows that a topic was recreated under the
same name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from itertools import groupby
from typing import Protocol

import structlog
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient

from inferd.schemas.connection import KafkaConnection
from inferd.schemas.topics import LABEL_STREAMS
from inferd.streams.connection import client_options
from inferd.streams.kafka.topic_metadata import TopicMetadata, read_topics
from inferd.streams.tasks import finished

log = structlog.get_logger(__name__)

REFRESH_INTERVAL_S = 1.0
WRITTEN_BY_ID = ("jobs", *LABEL_STREAMS)
"""Streams that others write, to a partition by the hash of an id."""
LOOK_TIMEOUT_S = 5.0


class KnownTopics(Protocol):
    """The lane's view of topics."""

    async def refresh(self) -> None:
        """Asks the broker now; `KafkaError` or `TimeoutError` if it does not answer."""

    def lacks(self, tp: TopicPartition) -> bool:
        """Whether the broker reports that a partition does not exist; False for unwatched topics."""

    def id_of(self, topic: str) -> str:
        """The topic id seen last; empty if the broker reports none."""

    def is_new(self, tp: TopicPartition) -> bool:
        """Whether a partition was created after its topic was first seen."""


class TopicWatch:
    """The topics of a worker as the broker described them last."""

    def __init__(
        self,
        connection: KafkaConnection,
        client_id: str,
        names: Collection[str],
        created_again: Callable[[str], None] = lambda _topic: None,
    ) -> None:
        """`created_again` is called with the name of a recreated topic."""
        self._created_again = created_again
        self._connection, self._client_id, self._names = connection, client_id, frozenset(names)
        self._client: AIOKafkaClient | None = None
        self._turn = asyncio.Lock()
        self._topics: dict[str, TopicMetadata | None] = {}
        self._others: frozenset[str] = frozenset()
        """Topics of others: one that does not exist is no problem of the worker."""
        self._ids: dict[str, str] = {}
        self._first: dict[str, int] = {}
        """Initial partition count by topic; 0 once it was deleted."""

    def watch(self, names: Collection[str]) -> None:
        """Also watches these topics, which need not exist."""
        self._names |= frozenset(names)
        self._others |= frozenset(names)

    async def refresh(self) -> None:
        """Like `KnownTopics.refresh`."""
        async with self._turn:
            try:
                async with asyncio.timeout(LOOK_TIMEOUT_S):
                    found = await read_topics(await self._opened(), self._names)
            except BaseException:
                await self.close()
                raise
        for name, now in found.items():
            self._note(name, now)

    async def close(self) -> None:
        """Closes the connection; the next `refresh` opens a new one."""
        client, self._client = self._client, None
        if client is not None:
            await finished(client.close())

    def lacks(self, tp: TopicPartition) -> bool:
        """Like `KnownTopics.lacks`."""
        if tp.topic not in self._topics:
            return False
        now = self._topics[tp.topic]
        return now is None or tp.partition >= now.partitions

    def id_of(self, topic: str) -> str:
        """Like `KnownTopics.id_of`."""
        return self._ids.get(topic, "")

    def is_new(self, tp: TopicPartition) -> bool:
        """Like `KnownTopics.is_new`."""
        return tp.partition >= self._first.get(tp.topic, tp.partition + 1)

    def partitions_of(self, topic: str) -> int:
        """Partition count of a topic; 0 if it does not exist, or has not been looked at."""
        now = self._topics.get(topic)
        return 0 if now is None else now.partitions

    @property
    def partitions(self) -> Mapping[str, int]:
        """Partition count by topic; 0 if it does not exist."""
        return {name: 0 if now is None else now.partitions for name, now in self._topics.items()}

    @property
    def missing(self) -> list[str]:
        """Topics that do not exist."""
        return sorted(name for name, now in self._topics.items() if now is None and name not in self._others)

    def unowned_reasons(
        self,
        topics: Collection[str],
        assigned: Collection[TopicPartition],
        partitions_max: Callable[[str], int | None],
    ) -> list[str]:
        """Why existing partitions of `topics` are assigned to no worker. `partitions_max`: how many of a topic are
        used; None: all."""
        reasons = []
        for topic in sorted(topics):
            tps = {TopicPartition(topic, number) for number in range(self.partitions.get(topic, 0))}
            used = partitions_max(topic)
            most = len(tps) if used is None else used
            if topic.rpartition(".")[2] in WRITTEN_BY_ID:
                reasons += surplus_reasons({tp for tp in tps if tp.partition >= most}, most)
            reasons += unassigned_reasons({tp for tp in tps.difference(assigned) if tp.partition < most})
        return reasons

    async def _opened(self) -> AIOKafkaClient:
        if self._client is None:
            self._client = AIOKafkaClient(**client_options(self._connection), client_id=self._client_id)
            await self._client.bootstrap()
        return self._client

    def _note(self, name: str, now: TopicMetadata | None) -> None:
        before = self._topics.get(name)
        self._topics[name] = now
        if now is None:
            self._first[name] = 0
            if before is not None:
                log.error("topic_deleted", topic=name)
            return
        self._first.setdefault(name, now.partitions)
        known = self._ids.get(name)
        if now.topic_id:
            self._ids[name] = now.topic_id
        if known and now.topic_id and now.topic_id != known:
            self._first[name] = 0
            log.error("topic_created_again", topic=name, partitions=now.partitions, topic_id=now.topic_id)
            self._created_again(name)
        elif before is not None and before.partitions != now.partitions:
            log.warning("topic_partitions_changed", topic=name, before=before.partitions, now=now.partitions)


def missing_reason(topic: str) -> str:
    """Why a worker is not ready, and what to do."""
    return f"topic {topic} does not exist: if it was deleted, create it again with `inferd topics create`"


def unassigned_reasons(tps: Collection[TopicPartition]) -> list[str]:
    """Why a worker is not ready if partitions of a topic are assigned to no worker."""
    if not tps:
        return []
    return [f"{_subject(tps)} assigned to no worker"]


def surplus_reasons(tps: Collection[TopicPartition], used: int) -> list[str]:
    """Why additional partitions of a topic of jobs or labels are not served, with the remedy."""
    if not tps:
        return []
    wanted = used
    while wanted <= max(tp.partition for tp in tps):
        wanted *= 2
    return [
        f"{_subject(tps)} not served: {used} are used, and more once all topics of the tenant have {wanted}; run"
        f" `inferd topics grow --partitions {wanted}` (docs/operations.md#topics-that-change)"
    ]


def unserved_reasons(
    unserved: Collection[TopicPartition], lacking: Callable[[TopicPartition], Collection[TopicPartition]]
) -> list[str]:
    """Why assigned partitions are not served, one text per topic. `lacking`: the missing partitions that a partition
    needs."""
    reasons = []
    for _, group in groupby(sorted(unserved), lambda tp: tp.topic):
        tps = list(group)
        because = "partitions that share state are assigned to different workers"
        if lacks := sorted({each.topic for tp in tps for each in lacking(tp)}):
            because = (
                f"{'it needs' if len(tps) == 1 else 'they need'} partitions of {' and '.join(lacks)} that do not exist"
            )
        reasons.append(f"{_subject(tps)} not served: {because}")
    return reasons


def _subject(tps: Collection[TopicPartition]) -> str:
    """`partition 4 of jobs is`, or `partitions 4, 5 and 7 of jobs are`."""
    numbers, topic = [str(tp.partition) for tp in sorted(tps)], next(iter(tps)).topic
    if len(numbers) == 1:
        return f"partition {numbers[0]} of {topic} is"
    return f"partitions {', '.join(numbers[:-1])} and {numbers[-1]} of {topic} are"

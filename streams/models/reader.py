"""Reads the model records of a set of tenants that may change at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition

from inferd.schemas.topics import Stream, TenantTopics
from inferd.streams.models.rejections import ModelRecord

POLL_MS = 1_000
STREAMS: tuple[Stream, ...] = ("model-artifacts", "models", "routes")
"""Read from the beginning by every worker; the artifacts first."""


class ModelReader:
    """A consumer of `models`, `model-artifacts` and `routes` of some tenants, each read from its beginning."""

    def __init__(self, consumer: AIOKafkaConsumer, topics: Mapping[str, TenantTopics]) -> None:
        """`topics`: the topics of every tenant that may be read."""
        self.tenants: frozenset[str] = frozenset()
        """Those that are read now."""
        self._consumer, self._topics = consumer, topics
        self._positions: dict[TopicPartition, int] = {}
        self._fetched_again: dict[TopicPartition, int] = {}
        """Where partitions stood when they were last fetched again."""
        self._unread: dict[str, dict[TopicPartition, int]] = {}
        """By tenant: the end offsets of its topics when it was chosen, without those that were reached."""

    async def choose(self, tenants: frozenset[str]) -> None:
        """Sets the tenants to read: new ones are read from the beginning, others from their current position."""
        if tenants == self.tenants:
            return
        for tp in self._consumer.assignment():
            self._positions[tp] = await self._consumer.position(tp)
        partitions = {tenant: _partitions(self._topics[tenant]) for tenant in sorted(tenants)}
        tps = [tp for of_tenant in partitions.values() for tp in of_tenant]
        self._consumer.assign(tps)
        for tp in tps:
            self._consumer.seek(tp, self._positions.get(tp, 0))
        ends = await self._consumer.end_offsets(tps) if tps else {}
        self._unread = {tenant: {tp: ends[tp] for tp in of_tenant} for tenant, of_tenant in partitions.items()}
        self.tenants = tenants

    def read_again(self, topic: str) -> None:
        """Reads a topic from its beginning, because it was created again."""
        tp = TopicPartition(topic, 0)
        self._positions.pop(tp, None)
        if tp in self._consumer.assignment():
            self._consumer.seek(tp, 0)

    async def fetch_again(self, tenant: str) -> None:
        """Reads the artifacts of a tenant from the beginning, because one is missing; no effect while that is in
        progress."""
        tp = _partitions(self._topics[tenant])[0]
        position = await self._consumer.position(tp)
        if position >= self._fetched_again.get(tp, 0):
            self._fetched_again[tp] = position
            self._consumer.seek(tp, 0)

    async def fetch(self) -> list[ModelRecord]:
        """New records. In one result, artifact parts come before manifests."""
        if not self.tenants:  # without an assignment aiokafka would wait forever
            await asyncio.sleep(POLL_MS / 1000)
            return []
        fetched = await self._consumer.getmany(timeout_ms=POLL_MS)
        return list(_in_order(fetched))

    async def read_to_end(self) -> frozenset[str]:
        """Tenants whose records were read up to the end offsets at the time when they were chosen."""
        for tenant, ends in list(self._unread.items()):
            left = {tp: end for tp, end in ends.items() if await self._consumer.position(tp) < end}
            if left:
                self._unread[tenant] = left
            else:
                del self._unread[tenant]
        return self.tenants - self._unread.keys()

    async def ask(self) -> None:
        """Returns when the broker has answered a request; raises a `KafkaError` if it does not."""
        if self.tenants:
            await self._consumer.end_offsets([TopicPartition(self._topics[min(self.tenants)].name("models"), 0)])
        else:
            await self._consumer.topics()


def _partitions(topics: TenantTopics) -> list[TopicPartition]:
    return [TopicPartition(topics.name(stream), 0) for stream in STREAMS]


def _in_order(fetched: Mapping[TopicPartition, list[ModelRecord]]) -> Iterable[ModelRecord]:
    for tp in sorted(fetched, key=lambda tp: not tp.topic.endswith("model-artifacts")):
        yield from fetched[tp]

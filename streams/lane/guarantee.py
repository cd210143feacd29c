"""A processing guarantee: how outputs, state changes and the next offset of a partition are committed together.

A lane turns taken records into `Effects`; what happens to them is one `Guarantee`: `AtLeastOnce` or `ExactlyOnce`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from inferd.streams.lane.output_batch import Effects
from inferd.streams.lane.partition import Flight, Partition

PUBLISH_ERRORS = (KafkaError, OSError, TimeoutError, asyncio.TimeoutError)
"""Raised where the broker cannot be reached, or refuses. After each of them: rewind and publish again."""

Outputs = Mapping[TopicPartition, Collection[TopicPartition]]
"""Partitions that are taken over, each with the partitions that its effects may be written to."""
Landed = Callable[[Partition, Flight], None]
Failed = Callable[[Partition, BaseException], None]


class Guarantee(Protocol):
    """How effects and offsets reach Kafka."""

    async def fence(self, outputs: Outputs) -> None:
        """To be called before positions are read: afterwards no earlier owner can publish or commit."""

    async def publish(self, partition: Partition, effects: Effects, timestamp_ms: int) -> None:
        """Publishes effects; returns once more of the same partition may follow. Raises `PUBLISH_ERRORS`."""

    async def commit(self, consumer: AIOKafkaConsumer, partitions: Collection[Partition]) -> None:
        """Commits the offsets of what is acknowledged, never more; a refusal raises nothing."""

    def contended_part(self, topic: str) -> int:
        """Which part of the usual size micro-batches of a topic are to have beside requests of other tenants."""

    @property
    def pause_s(self) -> float:
        """How long to wait after a failure before partitions that are still assigned are fenced again."""

    def start(self, tp: TopicPartition, committed: int, acked: int) -> int:
        """Offset to resume from after a failure; `acked`: what the broker had acknowledged before it."""

    async def release(self, tps: Collection[TopicPartition]) -> None:
        """Partitions went elsewhere: closes producers that served them alone."""

    async def discard(self, tps: Collection[TopicPartition]) -> None:
        """After a failure: closes every producer that serves one of `tps`; the next `fence` opens new ones."""

    async def close(self) -> None:
        """At the end: closes all producers."""

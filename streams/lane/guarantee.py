"""A processing guarantee: how outputs, state changes and the next offset of a partition are committed together.

A lane turns taken records into `OutputBatch`, and passes them to a `Guarantee`: `AtLeastOnce` or `ExactlyOnce`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from inferd.streams.lane.output_batch import OutputBatch
from inferd.streams.lane.partition import InFlightBatch, Partition

PUBLISH_ERRORS = (KafkaError, OSError, TimeoutError, asyncio.TimeoutError)
"""Raised if the broker is unreachable or refuses. The partition is then rewound and published again."""

Outputs = Mapping[TopicPartition, Collection[TopicPartition]]
"""Partitions being taken over, each with the partitions that its output may be written to."""
OnAcked = Callable[[Partition, InFlightBatch], None]
OnFailed = Callable[[Partition, BaseException], None]


class Guarantee(Protocol):
    """How output batches and offsets reach Kafka."""

    async def fence(self, outputs: Outputs) -> None:
        """Called before positions are read: afterwards no earlier owner can publish or commit."""

    async def publish(self, partition: Partition, output: OutputBatch, timestamp_ms: int) -> None:
        """Publishes an output batch; returns when the next one of the partition may follow. Raises `PUBLISH_ERRORS`."""

    async def commit(self, consumer: AIOKafkaConsumer, partitions: Collection[Partition]) -> None:
        """Commits acknowledged offsets only; does not raise if the broker rejects the commit."""

    def contended_part(self, topic: str) -> int:
        """Divisor of the usual micro-batch size of a topic while other tenants have requests."""

    @property
    def pause_s(self) -> float:
        """Wait after a failure before partitions that are still assigned are fenced again."""

    def start(self, tp: TopicPartition, committed: int, acked: int) -> int:
        """Offset to resume from after a failure; `acked`: the offset that was acknowledged before it."""

    async def release(self, tps: Collection[TopicPartition]) -> None:
        """Partitions were revoked: closes producers that served only them."""

    async def discard(self, tps: Collection[TopicPartition]) -> None:
        """After a failure: closes every producer that serves one of `tps`; the next `fence` opens new ones."""

    async def close(self) -> None:
        """Closes all producers at the end."""

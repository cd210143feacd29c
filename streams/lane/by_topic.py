"""Uses a different processing guarantee for some topics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition

from inferd.streams.lane.guarantee import Guarantee, Outputs
from inferd.streams.lane.output_batch import OutputBatch
from inferd.streams.lane.partition import Partition
from inferd.streams.tasks import all_of

T = TypeVar("T")


class ByTopic:
    """Combines two guarantees: one for some topics, one for all others."""

    def __init__(self, usual: Guarantee, other: Guarantee, topics: Collection[str]) -> None:
        """`other` is for `topics`."""
        self._both = (usual, other)
        self._topics = frozenset(topics)

    @property
    def pause_s(self) -> float:
        return max(guarantee.pause_s for guarantee in self._both)

    async def fence(self, outputs: Outputs) -> None:
        parts = self._split(outputs, lambda tp: tp.topic)
        # If one fails or the caller is cancelled, none is left running.
        await all_of(guarantee.fence({tp: outputs[tp] for tp in part}) for guarantee, part in parts)

    async def publish(self, partition: Partition, output: OutputBatch, timestamp_ms: int) -> None:
        await self._both[partition.tp.topic in self._topics].publish(partition, output, timestamp_ms)

    async def commit(self, consumer: AIOKafkaConsumer, partitions: Collection[Partition]) -> None:
        for guarantee, part in self._split(partitions, lambda partition: partition.tp.topic):
            await guarantee.commit(consumer, part)

    def contended_part(self, topic: str) -> int:
        return self._both[topic in self._topics].contended_part(topic)

    def start(self, tp: TopicPartition, committed: int, acked: int) -> int:
        return self._both[tp.topic in self._topics].start(tp, committed, acked)

    async def release(self, tps: Collection[TopicPartition]) -> None:
        for guarantee, part in self._split(tps, lambda tp: tp.topic):
            await guarantee.release(part)

    async def discard(self, tps: Collection[TopicPartition]) -> None:
        for guarantee, part in self._split(tps, lambda tp: tp.topic):
            await guarantee.discard(part)

    async def close(self) -> None:
        await asyncio.gather(*(guarantee.close() for guarantee in self._both))

    def _split(self, owned: Collection[T], topic_of: Callable[[T], str]) -> list[tuple[Guarantee, list[T]]]:
        others = [each for each in owned if topic_of(each) in self._topics]
        usual = [each for each in owned if topic_of(each) not in self._topics]
        return [(guarantee, part) for guarantee, part in zip(self._both, (usual, others), strict=True) if part]

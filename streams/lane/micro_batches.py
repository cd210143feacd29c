"""Which records come into the next micro-batch: everything that waits, within bounds, partition after partition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Hashable, Mapping

from aiokafka import TopicPartition

from inferd.streams.group import Records
from inferd.streams.lane.partition import Partition
from inferd.streams.lane.processor import Kind, Stage
from inferd.streams.lane.scheduling import one_a_unit, share_out
from inferd.streams.settings import LaneSettings

HELD_S = 0.2
"""How long a partition rests whose next record cannot be processed yet."""


class MicroBatches:
    """Takes micro-batches from the partitions of a lane."""

    def __init__(self, settings: LaneSettings, stages: Mapping[str, Stage], wake: Callable[[], None]) -> None:
        """`stages` by topic; `wake` is called when records that were put back may be taken again."""
        self.settings = settings
        self._stages = stages
        self._wake = wake
        self._turn = 0
        self._held: set[Partition] = set()
        """Partitions whose next record cannot be processed yet."""

    def take(
        self, kind: Kind, partitions: Mapping[TopicPartition, Partition], publishing: Collection[Partition]
    ) -> list[tuple[Partition, Records]]:
        """Everything that waits in the stages of a kind, partition by partition, within the bounds of a micro-batch.

        `publishing`: partitions whose effects are being handed to the producer.
        """
        if sum(p.in_flight_bytes for p in partitions.values()) >= self.settings.in_flight_bytes_max:
            return []
        ready = self._ready(kind, partitions, publishing)
        if not ready:
            return []
        rows = min(self._stages[p.tp.topic].records_max() for p in ready)
        return share_out(ready, rows, self.settings.batch_bytes_max)

    def _ready(
        self, kind: Kind, partitions: Mapping[TopicPartition, Partition], publishing: Collection[Partition]
    ) -> list[Partition]:
        """Partitions with something to take, another one first each time."""
        waiting = [p for p in partitions.values() if p.queued and p not in self._held]
        queued = [(p, self.unit(p)) for p in waiting if self._stages[p.tp.topic].kind == kind]
        if not queued:
            return []
        self._turn += 1
        turn = self._turn % len(queued)
        return one_a_unit(queued[turn:] + queued[:turn], self.busy_units(partitions, publishing))

    def busy_units(
        self, partitions: Mapping[TopicPartition, Partition], publishing: Collection[Partition]
    ) -> set[Hashable]:
        """Units at work: their records are being scored, or their effects handed to the producer."""
        return {*map(self.unit, publishing), *(self.unit(p) for p in partitions.values() if p.taken)}

    def unit(self, partition: Partition) -> Hashable:
        return self._stages[partition.tp.topic].unit(partition.tp.partition)

    def put_back(self, partition: Partition, records: Records) -> None:
        """Takes records that their stage has left again in a while; other partitions are not held up."""
        if records:
            partition.put_back(records)
            self._held.add(partition)
            asyncio.get_running_loop().call_later(HELD_S, self._let_go, partition)

    def _let_go(self, partition: Partition) -> None:
        self._held.discard(partition)
        self._wake()

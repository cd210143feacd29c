"""Forms micro-batches: all waiting records, within bounds, partition by partition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

from inferd.streams.group import Records
from inferd.streams.lane.partition import Partition
from inferd.streams.lane.processor import Processor
from inferd.streams.lane.scheduling import first_per_unit, share_out
from inferd.streams.settings import LaneSettings

HELD_S = 0.2
"""How long a partition rests if its next record cannot be processed yet."""


class MicroBatches:
    """Takes micro-batches from the partitions of one worker."""

    def __init__(self, settings: LaneSettings, processors: Mapping[str, Processor], wake: Callable[[], None]) -> None:
        """`processors` by topic; `wake` is called when records that were put back may be taken again."""
        self._settings = settings
        self._processors = processors
        self._wake = wake
        self._turn = 0
        self._held: set[Partition] = set()
        """Partitions whose next record cannot be processed yet."""

    def take(
        self, partitions: Sequence[Partition], busy: Collection[Hashable], part: int = 1
    ) -> list[tuple[Partition, Records]]:
        """What waits in units that are not busy, within the bounds of a micro-batch or a `part`th of them."""
        ready = self._ready(partitions, busy)
        if not ready:
            return []
        rows = min(self._processors[p.tp.topic].records_max() for p in ready)
        return share_out(ready, max(1, rows // part), self._settings.batch_bytes_max // part)

    def _ready(self, partitions: Sequence[Partition], busy: Collection[Hashable]) -> list[Partition]:
        """Partitions with records to take, starting with a different one each time."""
        queued = [(p, self.unit(p)) for p in partitions if p.queued and p not in self._held]
        if not queued:
            return []
        self._turn += 1
        turn = self._turn % len(queued)
        return first_per_unit(queued[turn:] + queued[:turn], busy)

    def unit(self, partition: Partition) -> Hashable:
        return self._processors[partition.tp.topic].unit(partition.tp.partition)

    def put_back(self, partition: Partition, records: Records) -> None:
        """Queues records again that their processor has left; other partitions are not delayed."""
        if records:
            partition.put_back(records)
            self._held.add(partition)
            asyncio.get_running_loop().call_later(HELD_S, self._release, partition)

    def resume(self) -> None:
        """Records that were put back may be taken again at once."""
        self._held.clear()
        self._wake()

    def _release(self, partition: Partition) -> None:
        self._held.discard(partition)
        self._wake()

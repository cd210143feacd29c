"""How a lane comes to own partitions: fence, restore their tables, read positions, seek, open.

The order is what makes it safe: after the fence no earlier owner can add anything, so the tables and the positions that
are read then are final.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.commit import Guarantee
from streams.faults import Faults
from streams.measure import LaneMeasures
from streams.partition import Partition
from streams.positions import read_positions
from streams.restore import Restore
from streams.settings import GroupSettings
from streams.stage import Stage
from streams.tables import LaneTable, TablePartition

log = structlog.get_logger(__name__)


class Group(Protocol):
    """The consumer group as far as a lane sees it."""

    @property
    def generation(self) -> int:
        """Generation of the membership; changes with every rebalance."""

    @property
    def consumer(self) -> AIOKafkaConsumer:
        """aiokafka's consumer."""

    async def seek(self, offsets: dict[TopicPartition, int]) -> None:
        """Moves the fetch positions; raises what aiokafka raises where a partition is not assigned."""


class Takeover:
    """Takes partitions over, for as long as it takes and they are ours."""

    def __init__(
        self,
        settings: GroupSettings,
        stages: Mapping[str, Stage],
        group: Group,
        guarantee: Guarantee,
        restore: Restore,
        faults: Faults,
        measures: LaneMeasures,
    ) -> None:
        self._settings = settings
        self._stages = stages
        self._group = group
        self._guarantee = guarantee
        self._restore = restore
        self._faults = faults
        self._measures = measures

    async def run(
        self,
        tps: set[TopicPartition],
        before: Mapping[TopicPartition, Partition],
        generation: int,
        ours: Callable[[], bool],
        opened: Callable[[dict[TopicPartition, Partition]], None],
        *,
        after_failure: bool,
    ) -> None:
        """Calls `opened` with `tps`, ready to be fetched, unless they stop being ours. `before` is what was owned."""
        started = time.monotonic()
        acked = {tp: partition.acked for tp, partition in before.items()}

        async def fence() -> None:
            await self._guarantee.fence({tp: self._outputs(tp) for tp in tps})

        async def open_partitions() -> None:
            positions = await read_positions(self._group.consumer, tps, self._settings.offset_reset)
            starts = {
                tp: self._guarantee.start(tp, position.start, acked.get(tp, 0)) for tp, position in positions.items()
            }
            if ours():
                await self._group.seek(starts)
            if ours():
                for tp in starts:
                    await self._stages[tp.topic].opened(tp.partition)
                opened({tp: Partition(tp, generation, start) for tp, start in starts.items()})
                self._measures.records_missing += sum(position.missing for position in positions.values())
                log.info(
                    "partitions_acquired", generation=generation, partitions=sorted(tp.partition for tp in tps),
                    ms=round((time.monotonic() - started) * 1000),
                )  # fmt: skip
            # After a failure, work that is left must come through before all is well again.
            if not after_failure or all(start >= positions[tp].end for tp, start in starts.items()):
                self._faults.clear()

        if tps:
            await self._faults.until_done("partitions cannot be taken over", fence, ours)
        if ours():
            await self._restore_tables(tps, ours)
        if tps:
            await self._faults.until_done("partitions cannot be taken over", open_partitions, ours)

    def _outputs(self, tp: TopicPartition) -> set[TopicPartition]:
        stage = self._stages[tp.topic]
        changelogs = {TopicPartition(table.changelog, tp.partition) for table in stage.tables}
        return {*stage.outputs(tp.partition), *changelogs}

    async def _restore_tables(self, tps: set[TopicPartition], ours: Callable[[], bool]) -> None:
        """Drops the table partitions that went elsewhere, and brings the others up to date."""
        owned: list[tuple[LaneTable, TablePartition]] = []
        for stage in self._stages.values():
            numbers = {tp.partition for tp in tps if tp.topic == stage.topic}
            for table in stage.tables:
                owned += [(table, partition) for partition in table.retain(numbers)]
        if owned:
            restore = partial(self._restore.run, owned)
            await self._faults.until_done("tables cannot be restored", restore, ours, bounded=False)

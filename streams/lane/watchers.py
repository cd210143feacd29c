"""Periodic work of a lane: commits, output that is due by time, retention gaps and reply topics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from aiokafka.errors import IllegalStateError

from inferd.streams.kafka import Destinations, RetentionGaps, TopicRejectedError
from inferd.streams.lane.context import Group, LaneContext
from inferd.streams.lane.guarantee import PUBLISH_ERRORS, OnFailed
from inferd.streams.lane.output_batch import OutputBatch
from inferd.streams.lane.owned_partitions import OwnedPartitions
from inferd.streams.lane.partition import Partition
from inferd.streams.lane.publisher import Publisher
from inferd.streams.telemetry import LaneMeasures

INTERVAL_S = 1.0
REPLY_LATE_S = 2.0
"""A reply topic is described again if a reply is not acknowledged within this time."""
POSITION_TIMEOUT_S = 0.1


async def commit_regularly(partitions: OwnedPartitions, publisher: Publisher, interval_s: float) -> None:
    """Commits acknowledged offsets."""
    while True:
        await asyncio.sleep(interval_s)
        await publisher.commit(list(partitions.values()))


async def watch_gaps(gaps: RetentionGaps, group: Group, measures: LaneMeasures) -> None:
    """Counts and logs records that retention deleted before they were read."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        if not gaps.noted:  # Before the first fetch there may be no consumer.
            continue
        with contextlib.suppress(*PUBLISH_ERRORS):  # Retried when the broker answers again.
            measures.records_missing += await gaps.check(group.consumer)


async def watch_destinations(destinations: Destinations, partitions: OwnedPartitions, on_failed: OnFailed) -> None:
    """Fails replies whose topic does not exist: producers would retry forever."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        late = [(p, topics) for p in partitions.values() if (topics := p.late_replies(REPLY_LATE_S))]
        if late or destinations.outdated:
            await destinations.refresh()
        for partition, topics in late:
            if (topic := destinations.unusable(topics)) is not None:
                on_failed(partition, TopicRejectedError(topic))


@dataclass(frozen=True, slots=True)
class IdleWatcher:
    """Publishes output that is due by time, and commits past offsets without records."""

    context: LaneContext
    publisher: Publisher
    gaps: RetentionGaps
    is_idle: Callable[[Partition], bool]
    """Whether a partition is idle and may publish."""

    async def run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):
                    await self.publisher.job_acked.wait()
            self.publisher.job_acked.clear()
            for partition in list(self.context.partitions.values()):
                position = await self._position(partition)
                if self.is_idle(partition) and (output := self._output(partition, position)) is not None:
                    self.publisher.publish(partition, [output])

    async def _position(self, partition: Partition) -> int | None:
        """The position of the fetcher; None if unknown."""
        with contextlib.suppress(IllegalStateError, *PUBLISH_ERRORS):
            async with asyncio.timeout(POSITION_TIMEOUT_S):
                position: int = await self.context.group.consumer.position(partition.tp)
                return position
        return None

    def _output(self, partition: Partition, position: int | None) -> OutputBatch | None:
        processor, now_ms = self.context.partitions.processor(partition), self.context.now_ms()
        output = processor.idle_output(partition.tp, partition.next_publish, now_ms)
        if output is None and position is not None and not (partition.pending or partition.has_in_flight):
            return self._skip_to(partition, position)
        return output

    def _skip_to(self, partition: Partition, position: int) -> OutputBatch | None:
        """An output batch that only commits past offsets without records, so that an idle group has no lag."""
        expected = partition.next_fetch
        if (back_to := partition.skip_to(position)) is not None:
            self.context.group.consumer.seek(partition.tp, back_to)
        if partition.next_fetch == expected:
            return None
        self.gaps.note(partition.tp, expected, position)
        return OutputBatch(position, 0, [])

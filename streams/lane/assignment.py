"""Takes partitions over: fill new ones, fence earlier owners, restore tables, open processors, read positions, seek.

The order matters: after the fence no earlier owner can write anything, so tables and positions that are read then are
final.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog
from aiokafka import TopicPartition

from inferd.streams.kafka import read_positions
from inferd.streams.lane.backoff import Faults
from inferd.streams.lane.context import LaneContext
from inferd.streams.lane.guarantee import Guarantee
from inferd.streams.lane.partition import Partition, by_topic
from inferd.streams.state import LaneTable, Restore, TablePartition

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class TakeoverPlan:
    """One takeover: its partitions, its callbacks, and whether the partitions are still assigned."""

    topics: Collection[str]
    """All topics of the tenants concerned."""
    tps: set[TopicPartition]
    faults: Faults
    """Faults that delay this takeover."""
    before: Mapping[TopicPartition, Partition]
    """Partitions owned until then."""
    generation: int
    """Generation of the membership that assigned them."""
    still_assigned: Callable[[], bool]
    """Whether `tps` are still assigned to this worker."""
    opened: Callable[[dict[TopicPartition, Partition]], None]
    after_failure: bool
    started: float = field(default_factory=time.monotonic)
    partitions: dict[TopicPartition, Partition] = field(default_factory=dict)
    """Partitions that can be served: everything that they need exists."""


class Takeover:
    """Takes partitions over, and retries while they are assigned to this worker."""

    def __init__(self, context: LaneContext, guarantee: Guarantee, restore: Restore) -> None:
        self.opened: set[TopicPartition] = set()
        """Partitions that are open in their processor, or were being opened when a takeover was cancelled."""
        self._context = context
        self._processors = context.processors
        self._topics = context.topics
        self._guarantee = guarantee
        self._restore = restore
        self._units: Mapping[str, list[str]] = {}
        self.update()

    async def run(self, plan: TakeoverPlan) -> None:
        """Calls `plan.opened` with those of `plan.tps` that can be served, ready to be fetched.

        It may be cancelled at any await: it closes the partitions that it has not opened; those that are open in their
        processors are closed by the next takeover, or by `close`.
        """
        what, still_assigned = "partitions cannot be taken over", plan.still_assigned
        try:
            if plan.tps:
                await plan.faults.until_done(what, partial(self._check_topics, plan), still_assigned)
                await plan.faults.until_done(what, partial(self._hand_over, plan), still_assigned, bounded=False)
                await plan.faults.until_done(what, partial(self._fence, plan), still_assigned)
            if still_assigned():
                await self._restore_tables(plan)
            if plan.tps:
                # Processors read their tables, which takes as long as these are large.
                await plan.faults.until_done(what, partial(self._open, plan), still_assigned, bounded=False)
                await plan.faults.until_done(what, partial(self._start, plan), still_assigned)
        finally:
            for partition in plan.partitions.values():
                if not partition.running:
                    partition.close()

    async def _check_topics(self, plan: TakeoverPlan) -> None:
        await self._topics.refresh()
        plan.partitions = {tp: self._context.partitions.make(tp) for tp in self.servable(plan.tps)}

    async def _hand_over(self, plan: TakeoverPlan) -> None:
        """New partitions get the states of their ids from older ones, which are fenced for that."""
        if (handover := self._context.handover) is not None:
            await handover.run(plan.partitions, self._outputs, self._context.group.consumer)

    async def _fence(self, plan: TakeoverPlan) -> None:
        await self._guarantee.fence({tp: self._outputs(tp) for tp in plan.partitions})

    async def _start(self, plan: TakeoverPlan) -> None:
        first = {tp: self._processors[tp.topic].start(tp.partition) for tp in plan.partitions}
        positions = await read_positions(
            self._context.group.consumer, first, self._context.settings.group.offset_reset, self._topics
        )  # fmt: skip
        ids = {tp: self._topic_ids(tp) for tp in plan.partitions}
        starts = {
            tp: self._guarantee.start(tp, position.start, _acked(plan.before.get(tp), ids[tp]))
            for tp, position in positions.items()
        }
        if plan.still_assigned():
            await self._context.group.seek(starts)
        if plan.still_assigned():
            for tp, partition in plan.partitions.items():
                partition.run(starts[tp], ids[tp])
            plan.opened(plan.partitions)
            self._context.measures.records_missing += sum(position.missing for position in positions.values())
            log.info(
                "partitions_acquired", generation=plan.generation, partitions=by_topic(starts),
                ms=round((time.monotonic() - plan.started) * 1000),
            )  # fmt: skip
        # After a failure the fault ends only when the remaining records have been processed.
        if not plan.after_failure or all(start >= positions[tp].end for tp, start in starts.items()):
            plan.faults.clear()

    async def _open(self, plan: TakeoverPlan) -> None:
        self.close({tp for tp in self.opened.difference(plan.partitions) if tp.topic in plan.topics})
        for tp in plan.partitions:
            self.opened.add(tp)
            await self._processors[tp.topic].opened(tp.partition)

    def close(self, tps: Collection[TopicPartition]) -> None:
        """Closes partitions in their processors, if they are open there."""
        for tp in self.opened.intersection(tps):
            self._processors[tp.topic].closed(tp.partition)
        self.opened.difference_update(tps)

    def servable(self, tps: Collection[TopicPartition]) -> set[TopicPartition]:
        """The partitions among `tps` whose topics have all partitions that they need, with all of their unit."""
        complete = {tp for tp in tps if not self.lacking(tp)}
        return {tp for tp in complete if self._unit_of(tp) <= complete}

    def lacking(self, tp: TopicPartition) -> set[TopicPartition]:
        """Missing partitions among those that a partition reads or writes."""
        return {each for each in self._needs(tp) if self._topics.lacks(each)}

    def outdated(self, partition: Partition) -> bool:
        """Whether a topic that a partition reads or writes was recreated since the takeover."""
        return self._topic_ids(partition.tp) != partition.topic_ids

    def _needs(self, tp: TopicPartition) -> set[TopicPartition]:
        return {*self._unit_of(tp), *self._outputs(tp)}

    def _topic_ids(self, tp: TopicPartition) -> dict[str, str]:
        return {topic: self._topics.id_of(topic) for topic in {each.topic for each in self._needs(tp)}}

    def _unit_of(self, tp: TopicPartition) -> set[TopicPartition]:
        """Partitions that share state with this one and must be owned by the same worker."""
        return {TopicPartition(topic, tp.partition) for topic in self._units[tp.topic]}

    def update(self) -> None:
        """Follows a change of the processors."""
        units = {topic: processor.unit(0) for topic, processor in self._processors.items()}
        self._units = {topic: [other for other in units if units[other] == unit] for topic, unit in units.items()}

    def _outputs(self, tp: TopicPartition) -> set[TopicPartition]:
        processor = self._processors[tp.topic]
        changelogs = {TopicPartition(table.changelog, tp.partition) for table in processor.tables}
        return {*processor.outputs(tp.partition), *changelogs}

    async def _restore_tables(self, plan: TakeoverPlan) -> None:
        """Closes table partitions that are no longer owned, and restores the others."""
        for partition in plan.partitions.values():
            partition.restore()
        numbers: dict[LaneTable, set[int]] = {}
        for topic in plan.topics:
            for table in self._processors[topic].tables:
                numbers.setdefault(table, set()).update(tp.partition for tp in plan.partitions if tp.topic == topic)
        owned: list[tuple[LaneTable, TablePartition]] = []
        for table, owned_here in numbers.items():
            owned += [(table, partition) for partition in await table.retain(owned_here)]
        if owned:
            restore = partial(self._restore.run, owned)
            await plan.faults.until_done("tables cannot be restored", restore, plan.still_assigned, bounded=False)


def _acked(before: Partition | None, topic_ids: Mapping[str, str]) -> int:
    """The acknowledged offset of a partition that was owned before; 0 if its topic was created again since."""
    if before is None or before.topic_id != topic_ids[before.tp.topic]:
        return 0
    return before.acked

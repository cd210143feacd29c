"""A worker task: processes the micro-batches of one tenant and kind of record, one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Hashable, Sequence

from inferd.streams.group import Records
from inferd.streams.lane.context import LaneContext
from inferd.streams.lane.micro_batches import MicroBatches
from inferd.streams.lane.partition import Partition
from inferd.streams.lane.processor import Processor
from inferd.streams.lane.publisher import Publisher
from inferd.streams.lane.scheduling import with_room
from inferd.streams.lane.turns import JobsShare, Share, Timed, Turns

Taken = list[tuple[Partition, Records]]


class Worker:
    """Takes, processes and publishes micro-batches. Threads, reads and slow models of one worker do not delay the
    others."""

    def __init__(
        self,
        context: LaneContext,
        processors: Sequence[Processor],
        publisher: Publisher,
        turns: Turns,
        jobs_share: JobsShare,
        stopped: Callable[[str], bool],
    ) -> None:
        """`processors`: of one tenant and kind; `stopped`: whether processing is paused for a tenant."""
        self.tenant, self.kind = processors[0].tenant, processors[0].kind
        self._context = context
        self._settings = context.settings.lane
        self._processors = {processor.topic: processor for processor in processors}
        self.topics = frozenset(self._processors)
        self._publisher = publisher
        self._turns = turns
        self._jobs_share = jobs_share
        weight = jobs_share.share if self.kind == "chunks" else 1.0
        self._share = Share(weight, urgent=self.kind == "requests")
        self._stopped = stopped
        self._work = asyncio.Event()
        self._batches = MicroBatches(self._settings, self._processors, self.wake)

    def wake(self) -> None:
        """Notifies the worker that there may be records to take."""
        self._work.set()

    def resume(self) -> None:
        """Makes records that were put back available again."""
        self._batches.resume()

    @property
    def waits(self) -> bool:
        """Whether HTTP requests are waiting or being processed."""
        return any(processor.waits for processor in self._processors.values())

    @property
    def backlogged(self) -> bool:
        """Whether more records are queued than the next micro-batch takes."""
        return self._queued() > min(processor.records_max() for processor in self._processors.values())

    def is_idle(self, partition: Partition) -> bool:
        """Whether a partition is idle and may publish."""
        if self._stopped(self.tenant) or not partition.running:
            return False
        return self._batches.unit(partition) not in self._busy_units()

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            await self._wait_to_fill()
            with self._jobs_share.at_work(self.kind):
                while await self._process_next():
                    self._context.progress.recheck()

    async def _process_next(self) -> bool:
        """Processes a micro-batch; False if there is nothing to take."""
        if not self._queued() and not self.waits:
            return False
        await self._turns.take(self._share)
        taken = self._take()
        if not taken and not self.waits:
            return False
        started = time.perf_counter()
        await Timed(self._process(taken), self._share)
        await asyncio.sleep(self._jobs_share.pause_s(self.kind, self._share, time.perf_counter() - started))
        return True

    async def _wait_to_fill(self) -> None:
        """Lets a micro-batch fill for as long as the settings allow; by default not at all."""
        if not self._settings.batch_wait_ms or self.kind != "requests" or not self._queued():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.batch_wait_ms / 1000):
                while self._queued() < self._settings.batch_rows_max:
                    self._work.clear()
                    await self._work.wait()

    def _take(self) -> Taken:
        own = self._partitions()
        if not self._may_publish():
            self._context.blocked.add(self._work)
            return []
        if self._stopped(self.tenant):
            return []
        taken = self._batches.take(own, self._busy_units(), self._part())
        if taken:
            self._context.room.set()
        return taken

    def _part(self) -> int:
        """Divisor of the usual micro-batch size: turns are short while other tenants have requests."""
        if not self._turns.contended(self._share):
            return 1
        return min(map(self._publisher.guarantee.contended_part, self._processors))

    async def _process(self, taken: Taken) -> None:
        rewinds = {partition: partition.rewinds for partition, _ in taken}
        for processor, work in self._by_processor(taken):
            effects_of = await processor.process([(partition.tp, part) for partition, part in work])
            for (partition, part), steps in zip(work, effects_of, strict=True):
                # The partition was rewound or revoked in the meantime: its records are processed again, here or by the
                # next owner.
                if partition.rewinds != rewinds[partition]:
                    processor.rewound(partition.tp.partition, steps)
                elif not partition.running:
                    self._context.partitions.drop_taken(partition, part)
                else:
                    self._batches.put_back(partition, part[sum(output.records for output in steps) :])
                    self._publisher.publish(partition, steps)

    def _by_processor(self, taken: Taken) -> list[tuple[Processor, Taken]]:
        by_topic: dict[str, Taken] = {topic: [] for topic, processor in self._processors.items() if processor.waits}
        for partition, records in taken:
            by_topic.setdefault(partition.tp.topic, []).append((partition, records))
        return [(self._processors[topic], work) for topic, work in by_topic.items()]

    def _partitions(self) -> list[Partition]:
        return self._context.partitions.of(self._processors)

    def _may_publish(self) -> bool:
        """Whether the tenant may have more in flight."""
        used = {tenant: usage.in_flight_bytes for tenant, usage in self._context.partitions.usage.items()}
        return self.tenant in with_room(used, self._settings.in_flight_bytes_max)

    def _queued(self) -> int:
        return sum(partition.queued for partition in self._partitions())

    def _busy_units(self) -> set[Hashable]:
        """Units whose records are being processed, or whose output is being passed to the producer."""
        publishing = self._publisher.publishing
        return {self._batches.unit(p) for p in self._partitions() if p.taken or p in publishing}

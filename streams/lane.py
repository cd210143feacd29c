"""The batch lane: take what waits, score it, publish, acknowledge, commit.

A request's way, read from top to bottom: `feed` (fetched) → `_take` → `_process` (scored) → `_publish` → `_landed`
(acknowledged) → `_commit_regularly`. Ownership of partitions comes and goes with `acquire` and `release`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.batch_scoring import BatchScoring
from streams.commit import PUBLISH_ERRORS, Guarantee
from streams.effects import Effects
from streams.faults import Faults, describe
from streams.fetch import Records
from streams.measure import LaneMeasures
from streams.pace import Pace
from streams.partition import Flight, Partition
from streams.positions import read_positions
from streams.settings import StreamSettings
from streams.snapshot import TenantSnapshot
from streams.tenant_lane import TenantLane, Timing

log = structlog.get_logger(__name__)

PARTITION_BYTES_MIN = 1_048_576
"""What one partition may always have queued, however many share the buffer."""


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


class Lane:
    """Scores the requests of all tenants of one worker, partition by partition in order, in micro-batches."""

    def __init__(
        self,
        settings: StreamSettings,
        tenants: Iterable[TenantLane],
        group: Group,
        guarantee: Callable[[Lane], Guarantee],
        measures: LaneMeasures,
        crashed: Callable[[BaseException], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`crashed` is called with what a task of the lane raised and nobody expected."""
        self.measures = measures
        self._crashed = crashed
        self.partitions: dict[TopicPartition, Partition] = {}
        self.progress = 0
        """Grows with everything that moves; a lane with work whose progress stands still is stalled."""
        self._settings = settings.lane
        self._group_settings = settings.group
        self._faults = Faults(settings.group.request_timeout_s)
        self._tenants = {tenant.topic: tenant for tenant in tenants}
        self._group = group
        self._guarantee = guarantee(self)
        self._clock = clock
        self._pace = Pace(settings.lane)
        self._scoring = BatchScoring(measures, self._pace, clock)
        self._epoch = 0
        self._paused = self._draining = False
        self._turn = 0
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._moved = asyncio.Event()
        self._publishing: dict[Partition, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ownership: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Scores until cancelled; never ends by itself."""
        committing = self._start(self._commit_regularly())
        while not committing.done():
            await self._work.wait()
            self._work.clear()
            await self._wait_to_fill()
            while taken := self._take():
                await self._process(taken)
                # The sender, the fetcher and the heartbeat get their turn between two micro-batches.
                await asyncio.sleep(0)

    async def _wait_to_fill(self) -> None:
        """Gives a micro-batch the time to fill that the settings allow; by default none."""
        if not self._settings.batch_wait_ms or not any(p.queued for p in self.partitions.values()):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.batch_wait_ms / 1000):
                while sum(p.queued for p in self.partitions.values()) < self._settings.batch_rows_max:
                    self._work.clear()
                    await self._work.wait()

    async def drain(self) -> None:
        """Takes nothing more, waits until what is in flight is acknowledged, and commits it; has no deadline itself."""
        self._draining = True
        partitions = list(self.partitions.values())
        for partition in partitions:
            self._forget(partition, partition.close())
        await self._settle(partitions)
        if partitions:  # without any, there may be no consumer yet
            await self._guarantee.commit(self._group.consumer, partitions)

    async def close(self) -> None:
        """Ends every task and lets go of the producers; nothing is committed any more."""
        self._epoch += 1
        self._draining = True
        tasks = [*self._tasks, *self._publishing.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._guarantee.close()

    @property
    def fault(self) -> str | None:
        """What work waits for, in words; None while all is well."""
        return self._faults.current

    @property
    def settled(self) -> bool:
        """Whether the last assignment has been taken over."""
        return self._ownership is not None and self._ownership.done() and not self._ownership.cancelled()

    def tenant_snapshots(self) -> tuple[TenantSnapshot, ...]:
        """Counters of every tenant, with what its partitions hold."""
        pending = Counter[str]()
        for tp, partition in self.partitions.items():
            pending[tp.topic] += partition.pending
        return tuple(tenant.counters.snapshot(pending[topic]) for topic, tenant in self._tenants.items())

    @property
    def busy(self) -> bool:
        """Whether there is work that should be making progress."""
        return any(p.pending for p in self.partitions.values()) or bool(self._publishing)

    # ------------------------------------------------------------------ fetched

    @property
    def topics(self) -> frozenset[str]:
        return frozenset(self._tenants)

    def full(self, tps: set[TopicPartition]) -> set[TopicPartition]:
        """Lane partitions that may not be fetched now: not owned, or with enough waiting."""
        queued = sum(p.queued_bytes for p in self.partitions.values())
        everywhere = self._paused or self._draining or queued >= self._settings.buffer_bytes_max
        share = max(PARTITION_BYTES_MIN, self._settings.buffer_bytes_max // max(1, len(self.partitions)))
        full = set()
        for tp in tps:
            if tp.topic not in self._tenants:
                continue
            partition = self.partitions.get(tp)
            if everywhere or partition is None or partition.closed or partition.queued_bytes >= share:
                full.add(tp)
        return full

    async def wait_for_room(self, timeout_s: float) -> None:
        self._room.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._room.wait(), timeout_s)

    def feed(self, tp: TopicPartition, records: Records) -> None:
        """Queues a fetched batch. What is not owned is dropped: whoever takes a partition over seeks before."""
        partition = self.partitions.get(tp)
        if partition is None or partition.closed or self._paused or not records:
            return
        queued = partition.queued
        back_to = partition.offer(records)
        if back_to is not None:
            log.info("seek_back", topic=tp.topic, partition=tp.partition, expected=back_to, got=records[0].offset)
            self._group.consumer.seek(tp, back_to)
            return
        if partition.queued > queued:
            self._tenants[tp.topic].counters.requests_in += partition.queued - queued
            self._move()

    def suspect(self) -> None:
        for partition in self.partitions.values():
            partition.suspect = True

    # ------------------------------------------------------------------ taken, scored, published

    def _take(self) -> list[tuple[Partition, Records]]:
        """Everything that waits, of all partitions in turn, within the bounds of one micro-batch."""
        if self._paused or self._draining:
            return []
        if sum(p.in_flight_bytes for p in self.partitions.values()) >= self._settings.in_flight_bytes_max:
            return []
        ready = [p for p in self.partitions.values() if p.queued and p not in self._publishing]
        if not ready:
            return []
        self._turn += 1
        turn = self._turn % len(ready)
        return self._share_out(ready[turn:] + ready[:turn])

    def _share_out(self, ready: list[Partition]) -> list[tuple[Partition, Records]]:
        """Gives each partition its part of the bounds; what one leaves goes to those after it."""
        rows, size = self._pace.records_max(), self._settings.batch_bytes_max
        taken = []
        for left, partition in zip(range(len(ready), 0, -1), ready, strict=True):
            before = partition.queued_bytes
            records = partition.take(max(1, rows // left), max(1, size // left))
            rows -= len(records)
            size -= before - partition.queued_bytes
            if records:
                taken.append((partition, records))
        self._room.set()
        return taken

    async def _process(self, taken: list[tuple[Partition, Records]]) -> None:
        rewinds = {partition: partition.rewinds for partition, _ in taken}
        for tenant, work in self._by_tenant(taken):
            started_ms, started = self._now_ms(), time.perf_counter()
            outcome = await self._scoring.score(tenant, [(partition.tp.partition, part) for partition, part in work])
            timing = Timing(started_ms, int((time.perf_counter() - started) * 1e6))
            start = 0
            for partition, part in work:
                span = range(start, start := start + len(part))
                # Rewound or lost while it was scored: its records are done again, here or by their next owner.
                if partition.rewinds != rewinds[partition]:
                    continue
                if partition.closed:
                    partition.taken -= len(part)
                    self._forget(partition, len(part))
                    continue
                self._publish(partition, tenant.effects(partition.tp, part, outcome, span, timing))

    def _by_tenant(
        self, taken: list[tuple[Partition, Records]]
    ) -> Iterable[tuple[TenantLane, list[tuple[Partition, Records]]]]:
        by_topic: dict[str, list[tuple[Partition, Records]]] = {}
        for partition, records in taken:
            by_topic.setdefault(partition.tp.topic, []).append((partition, records))
        return [(self._tenants[topic], work) for topic, work in by_topic.items()]

    def _publish(self, partition: Partition, effects: Effects) -> None:
        task = self._start(self._publish_now(partition, effects))
        self._publishing[partition] = task
        task.add_done_callback(lambda _: self._published(partition))

    async def _publish_now(self, partition: Partition, effects: Effects) -> None:
        rewinds = partition.rewinds
        try:
            await self._guarantee.publish(partition, effects, self._now_ms())
        except PUBLISH_ERRORS as error:
            if partition.rewinds == rewinds:
                self.failed(partition, error)

    def _published(self, partition: Partition) -> None:
        self._publishing.pop(partition, None)
        self._move()

    # ------------------------------------------------------------------ acknowledged, committed

    def landed(self, partition: Partition, flight: Flight) -> None:
        """Everything of a taken range is acknowledged."""
        self._faults.clear()
        self.measures.end_to_end.observe_since(flight.effects.timestamps, self._now_ms())
        self._tenants[partition.tp.topic].counters.add(flight.effects.tally)
        self._move()

    async def _commit_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._settings.commit_interval_s)
            if self.partitions:
                await self._guarantee.commit(self._group.consumer, list(self.partitions.values()))

    # ------------------------------------------------------------------ ownership

    async def acquire(self, tps: Collection[TopicPartition]) -> None:
        """Takes over assigned lane partitions: fence, read positions, seek, open; tries again while they are ours."""
        self._epoch += 1
        lane_tps = {tp for tp in tps if tp.topic in self._tenants}
        if self._ownership is not None:
            self._ownership.cancel()
        self._ownership = self._start(self._own(lane_tps, self._epoch, self._group.generation))
        await asyncio.wait({self._ownership}, timeout=self._group_settings.request_timeout_s)

    async def _own(self, tps: set[TopicPartition], epoch: int, generation: int, *, after_failure: bool = False) -> None:
        acked = {tp: partition.acked for tp, partition in self.partitions.items()}

        def ours() -> bool:
            return self._epoch == epoch and self._group.generation == generation

        async def open_partitions() -> None:
            await self._guarantee.fence(tps)
            positions = await read_positions(self._group.consumer, tps, self._group_settings.offset_reset)
            # What we had acknowledged before a failure need not be done again, committed or not.
            starts = {tp: max(position.start, acked.get(tp, 0)) for tp, position in positions.items()}
            if ours():
                await self._group.seek(starts)
            if ours():
                self.partitions = {tp: Partition(tp, generation, start) for tp, start in starts.items()}
                self.measures.records_missing += sum(position.missing for position in positions.values())
                log.info("partitions_acquired", generation=generation, partitions=sorted(tp.partition for tp in tps))
            # After a failure, work that is left must come through before all is well again.
            if not after_failure or all(start >= positions[tp].end for tp, start in starts.items()):
                self._faults.clear()

        if tps:
            await self._faults.until_done("partitions cannot be taken over", open_partitions, ours)
        self._paused = False
        self._move()

    async def release(self, revoked: set[TopicPartition]) -> None:
        """Gives partitions up: drops what waits, finishes what is in flight within a deadline, commits, and no more."""
        self._epoch += 1
        for task in (self._ownership, self._recovery):
            if task is not None:
                task.cancel()
        released = [self.partitions.pop(tp) for tp in list(self.partitions) if tp in revoked]
        for partition in released:
            self._forget(partition, partition.close())
        if not released:
            return
        started = time.monotonic()
        try:
            await asyncio.wait_for(self._settle(released), self._settings.revoke_timeout_s)
        except TimeoutError:
            log.warning("release_timed_out", in_flight=sum(p.in_flight for p in released))
            self._cancel_publishing(released)
        await self._guarantee.commit(self._group.consumer, released)
        for partition in released:
            self._forget(partition, partition.rewind())
        _ = self._start(self._guarantee.release([partition.tp for partition in released]))
        log.info(
            "partitions_released", partitions=sorted(p.tp.partition for p in released),
            ms=round((time.monotonic() - started) * 1000),
        )  # fmt: skip

    async def _settle(self, partitions: Collection[Partition]) -> None:
        """Waits until nothing of `partitions` is being published or in flight."""
        while any(p.in_flight or p in self._publishing for p in partitions):
            self._moved.clear()
            await self._moved.wait()

    # ------------------------------------------------------------------ failure

    def failed(self, partition: Partition, error: BaseException) -> None:
        """Something could not be published: everything unacknowledged is fetched and done again."""
        if self.partitions.get(partition.tp) is not partition or partition.closed:
            self._forget(partition, partition.rewind())
            self._move()
            return
        if self._recovery is None or self._recovery.done():
            self._recovery = self._start(self._recover(error, self._epoch))

    async def _recover(self, error: BaseException, epoch: int) -> None:
        self._paused = True
        self._faults.note(f"results cannot be published: {describe(error)}")
        tps, generation = set(self.partitions), max(p.generation for p in self.partitions.values())
        self._cancel_publishing(self.partitions.values())
        for partition in self.partitions.values():
            self._forget(partition, partition.rewind())
        await self._guarantee.close()
        # A topic that refuses writes lets a new producer start all the same: without acknowledgements, ever slower.
        await self._faults.pause(self._guarantee.pause_s)
        await self._own(tps, epoch, generation, after_failure=True)

    # ------------------------------------------------------------------

    def _cancel_publishing(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            if (task := self._publishing.get(partition)) is not None:
                task.cancel()

    def _forget(self, partition: Partition, records: int) -> None:
        """Records that will be fetched again, here or elsewhere, count as never seen."""
        self._tenants[partition.tp.topic].counters.requests_in -= records

    def _move(self) -> None:
        self.progress += 1
        self._work.set()
        self._room.set()
        self._moved.set()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crashed(error)

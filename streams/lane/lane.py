"""The batch lane: take what waits, score it, publish, acknowledge, commit.

The life of a batch: `Lane.feed` (fetched) → `Lane._take` → `Lane._process` (scored) → `Publisher.publish` →
`Publisher._landed` (acknowledged) → `commit_regularly`. `Ownership` acquires and releases the partitions.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import get_args

import structlog
from aiokafka import TopicPartition

from inferd.streams.group import Records
from inferd.streams.kafka import RetentionGaps
from inferd.streams.lane.assignment import Takeover
from inferd.streams.lane.context import LaneContext
from inferd.streams.lane.micro_batches import MicroBatches
from inferd.streams.lane.ownership import Ownership
from inferd.streams.lane.partition import Partition
from inferd.streams.lane.processor import Kind, Stage
from inferd.streams.lane.publisher import MakeGuarantee, Publisher
from inferd.streams.lane.scheduling import without_room
from inferd.streams.lane.watchers import IdleWatcher, commit_regularly, watch_destinations, watch_gaps
from inferd.streams.state import Restore
from inferd.streams.telemetry import TenantSnapshot

log = structlog.get_logger(__name__)

UNREADABLE_S = 5.0
"""After how long a log that could not be read is tried again."""
SHARE_PAUSE_S_MAX = 1.0


class Lane:
    """Takes the records of every stage of one worker, partition by partition in order, in micro-batches."""

    def __init__(self, context: LaneContext, make_guarantee: MakeGuarantee) -> None:
        self.measures = context.measures
        self._context = context
        self._settings = context.settings.lane
        self._stages = context.stages
        self._partitions = context.partitions
        self._progress = context.progress
        self._progress.listen(self._moved)
        self._restore = Restore(context.settings, self._progress.advance)
        self._publisher = Publisher(context, make_guarantee, self._failed)
        takeover = Takeover(context, self._publisher.guarantee, self._restore)
        self._ownership = Ownership(context, self._publisher, takeover)
        self._batches = MicroBatches(self._settings, self._stages, self.wake)
        self._gaps = RetentionGaps()
        self._unreadable: dict[TopicPartition, tuple[str, float]] = {}
        """Partitions whose log cannot be read further: why, and when that is tried again."""
        self._draining = False
        self._requests_came = False
        """Whether requests were scored since the last chunk of a job."""
        self._work: dict[Kind, asyncio.Event] = {kind: asyncio.Event() for kind in get_args(Kind)}
        self._room = asyncio.Event()

    # ------------------------------------------------------------------ lifecycle

    async def run(self) -> None:
        """Works until cancelled; never ends by itself."""
        kinds: set[Kind] = {stage.kind for stage in self._stages.values()}
        idle = IdleWatcher(self._context, self._publisher, self._gaps, self._at_rest)
        running = [
            commit_regularly(self._partitions, self._publisher, self._settings.commit_interval_s),
            watch_gaps(self._gaps, self._context.group, self.measures),
            watch_destinations(self._context.destinations, self._partitions, self._failed),
            idle.run(),
            *map(self._run_kind, kinds),
        ]
        await asyncio.wait([self._context.tasks.start(task) for task in running], return_when=asyncio.FIRST_COMPLETED)

    async def acquire(self, tps: Iterable[TopicPartition]) -> None:
        """Takes over assigned partitions; returns when they are open, or when that takes long."""
        await self._ownership.acquire({*tps})

    async def release(self, revoked: set[TopicPartition]) -> None:
        """Gives revoked partitions up: finishes what is in flight within a deadline, and commits."""
        self._unreadable = {tp: why for tp, why in self._unreadable.items() if tp not in revoked}
        await self._ownership.release(revoked)

    async def drain(self) -> None:
        """Takes nothing more, waits until what is in flight is acknowledged and what was asked directly is answered,
        and commits; has no deadline itself."""
        self._draining = True
        partitions = list(self._partitions.values())
        self._partitions.drain(partitions)
        await self._publisher.settle(partitions)
        await self._progress.until(lambda: not any(map(self._waiting, self._work)))
        await self._publisher.commit(partitions)

    async def close(self) -> None:
        """Ends every task and closes the producers; nothing is committed any more."""
        self._draining = True
        await self._ownership.end_takeovers()
        await self._context.tasks.close()
        await self._publisher.guarantee.close()

    # ------------------------------------------------------------------ status

    @property
    def partitions(self) -> Mapping[TopicPartition, Partition]:
        """Partitions that are owned and served."""
        return self._partitions

    @property
    def assigned(self) -> frozenset[TopicPartition]:
        """Lane partitions that the group has given to this worker, served or not."""
        return self._ownership.assigned

    @property
    def unserved(self) -> list[str]:
        """Why partitions that are assigned here are not served: what they need does not exist."""
        return self._ownership.unserved

    @property
    def settled(self) -> bool:
        """Whether the last assignment has been taken over."""
        return self._ownership.settled

    @property
    def fault(self) -> str | None:
        """What work waits for, in words; None while all is well."""
        return self._context.faults.current or next((reason for reason, _ in self._unreadable.values()), None)

    @property
    def restoring(self) -> int | None:
        """How many changelog records are still to be read before partitions are open; None while none are restored."""
        return self._restore.behind

    @property
    def restored_records(self) -> int:
        """Changelog records read since the start."""
        return self._restore.records

    @property
    def progress(self) -> int:
        """Grows with everything that moves; a lane with work whose progress stands still is stalled."""
        return self._progress.count

    @property
    def busy(self) -> bool:
        """Whether there is work that should be making progress."""
        return any(p.pending for p in self._partitions.values()) or bool(self._publisher.publishing)

    def tenant_snapshots(self) -> tuple[TenantSnapshot, ...]:
        """Counters of every tenant, with what its partitions hold."""
        pending = Counter[str]()
        for tp, partition in self._partitions.items():
            pending[tp.topic] += partition.pending
        return tuple(
            stage.counters.snapshot(pending[topic]) for topic, stage in self._stages.items() if stage.kind == "requests"
        )

    def look_at_topics(self) -> None:
        """Takes partitions over anew where their topics have changed."""
        if not self._draining:
            self._ownership.look_at_topics()

    # ------------------------------------------------------------------ fetched

    @property
    def topics(self) -> frozenset[str]:
        return frozenset(self._stages)

    def full(self, tps: set[TopicPartition]) -> set[TopicPartition]:
        """Lane partitions that may not be fetched now: not owned, or with enough waiting."""
        ours = {tp for tp in tps if tp.topic in self._stages}
        if self._stopped:
            return ours
        now = time.monotonic()
        unreadable = {tp for tp in ours if now < self._unreadable.get(tp, ("", 0.0))[1]}
        return unreadable | without_room(ours, self._partitions, self._settings.buffer_bytes_max)

    async def wait_for_room(self, timeout_s: float) -> None:
        self._room.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._room.wait()

    def feed(self, tp: TopicPartition, records: Records) -> None:
        """Queues a fetched batch. What is not owned is dropped: whoever takes a partition over seeks before."""
        partition = self._partitions.get(tp)
        if partition is None or not partition.running or self._ownership.paused or not records:
            return
        self._unreadable.pop(tp, None)
        expected = partition.next_fetch
        if (back_to := self._partitions.queue(partition, records)) is not None:
            log.info("seek_back", topic=tp.topic, partition=tp.partition, expected=back_to, got=records[0].offset)
            self._context.group.consumer.seek(tp, back_to)
        elif partition.next_fetch > expected:
            if records[0].offset > expected:
                self._gaps.note(tp, expected, records[0].offset)
            self._progress.advance()

    def unreadable(self, tp: TopicPartition, reason: str) -> None:
        """The log of a partition cannot be read further: says so, and reads the others; this one is tried again."""
        if tp not in self._unreadable:
            log.error("log_unreadable", reason=reason)
        self._unreadable[tp] = reason, time.monotonic() + UNREADABLE_S

    def suspect(self) -> None:
        for partition in self._partitions.values():
            partition.doubt()

    def wake(self) -> None:
        """There is work that was not fetched."""
        for work in self._work.values():
            work.set()

    # ------------------------------------------------------------------ taken and processed

    async def _run_kind(self, kind: Kind) -> None:
        while True:
            await self._work[kind].wait()
            self._work[kind].clear()
            if kind == "requests":
                await self._wait_to_fill()
            while (taken := self._take(kind)) or self._waiting(kind):
                started = time.perf_counter()
                await self._process(kind, taken)
                self._progress.recheck()
                # The sender, the fetcher and the heartbeat get their turn between two micro-batches.
                await asyncio.sleep(self._pause_s(kind, time.perf_counter() - started))

    def _waiting(self, kind: Kind) -> bool:
        """Whether a stage has work that was not fetched."""
        return any(stage.waits for stage in self._stages.values() if stage.kind == kind)

    def _pause_s(self, kind: Kind, worked_s: float) -> float:
        """Chunks of jobs leave their share of the time to requests, while there are any."""
        if kind != "chunks" or not self._requests_came:
            return 0.0
        self._requests_came = False
        share = self._settings.jobs_share
        return min(worked_s * (1 - share) / share, SHARE_PAUSE_S_MAX)

    async def _wait_to_fill(self) -> None:
        """Gives a micro-batch the time to fill that the settings allow; by default none."""
        if not self._settings.batch_wait_ms or not any(p.queued for p in self._partitions.values()):
            return
        work = self._work["requests"]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.batch_wait_ms / 1000):
                while sum(p.queued for p in self._partitions.values()) < self._settings.batch_rows_max:
                    work.clear()
                    await work.wait()

    def _take(self, kind: Kind) -> list[tuple[Partition, Records]]:
        if self._stopped:
            return []
        taken = self._batches.take(kind, self._partitions, self._publisher.publishing)
        if taken:
            self._room.set()
        return taken

    async def _process(self, kind: Kind, taken: list[tuple[Partition, Records]]) -> None:
        rewinds = {partition: partition.rewinds for partition, _ in taken}
        for stage, work in self._by_stage(kind, taken):
            effects_of = await stage.process([(partition.tp, part) for partition, part in work])
            for (partition, part), steps in zip(work, effects_of, strict=True):
                # Rewound or lost while it was scored: its records are done again, here or by their next owner.
                if partition.rewinds != rewinds[partition]:
                    stage.rewound(partition.tp.partition, steps)
                elif not partition.running:
                    self._partitions.put_aside(partition, part)
                else:
                    self._batches.put_back(partition, part[sum(effects.records for effects in steps) :])
                    self._publisher.publish(partition, steps)
        self._requests_came |= kind == "requests"

    def _by_stage(
        self, kind: Kind, taken: list[tuple[Partition, Records]]
    ) -> Iterable[tuple[Stage, list[tuple[Partition, Records]]]]:
        by_topic: dict[str, list[tuple[Partition, Records]]] = {
            topic: [] for topic, stage in self._stages.items() if stage.kind == kind and stage.waits
        }
        for partition, records in taken:
            by_topic.setdefault(partition.tp.topic, []).append((partition, records))
        return [(self._stages[topic], work) for topic, work in by_topic.items()]

    # ------------------------------------------------------------------

    @property
    def _stopped(self) -> bool:
        """Whether nothing is fetched or taken now."""
        return self._draining or self._ownership.paused

    def _at_rest(self, partition: Partition) -> bool:
        """Whether nothing of a partition is being processed or published, and something may be."""
        if self._stopped or not partition.running:
            return False
        busy = self._batches.busy_units(self._partitions, self._publisher.publishing)
        return self._batches.unit(partition) not in busy

    def _failed(self, partition: Partition, error: BaseException) -> None:
        self._ownership.failed(partition, error)

    def _moved(self) -> None:
        self.wake()
        self._room.set()

"""The batch lane: takes records in batches, scores them, publishes results, acknowledges and commits.

The life of a batch: `Lane.feed` (fetched) → `Worker._take` → `Worker._process` (scored) → `Publisher.publish` →
`Publisher._acked` (acknowledged) → `commit_regularly`. Each tenant and kind of record has its own worker. `Ownership`
acquires and releases the partitions.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import structlog
from aiokafka import TopicPartition

from inferd.streams.group import Records
from inferd.streams.kafka import RetentionGaps
from inferd.streams.lane.assignment import Takeover
from inferd.streams.lane.context import LaneContext
from inferd.streams.lane.ownership import Ownership
from inferd.streams.lane.partition import Partition
from inferd.streams.lane.processor import Kind, Processor
from inferd.streams.lane.publisher import MakeGuarantee, Publisher
from inferd.streams.lane.scheduling import without_room
from inferd.streams.lane.turns import JobsShare, Turns
from inferd.streams.lane.watchers import IdleWatcher, commit_regularly, watch_destinations, watch_gaps
from inferd.streams.lane.worker import Worker
from inferd.streams.state import Restore
from inferd.streams.tasks import cancelled
from inferd.streams.telemetry import TenantSnapshot

log = structlog.get_logger(__name__)

UNREADABLE_S = 5.0
"""Retry interval for a log that could not be read."""


class Lane:
    """Processes the records of all processors of a worker in micro-batches, in order within each partition."""

    def __init__(self, context: LaneContext, make_guarantee: MakeGuarantee) -> None:
        self.measures = context.measures
        self._context = context
        self._settings = context.settings.lane
        self._processors = context.processors
        self._partitions = context.partitions
        self._progress = context.progress
        self._restore = Restore(context.settings, self._progress.advance)
        self._publisher = Publisher(context, make_guarantee, self._failed)
        self._takeover = Takeover(context, self._publisher.guarantee, self._restore)
        self._ownership = Ownership(context, self._publisher, self._takeover)
        self._turns, self._jobs_share = Turns(), JobsShare(self._settings.jobs_share)
        self._workers: dict[str, Worker] = {}
        """By topic."""
        self._running: dict[Worker, asyncio.Task[None]] = {}
        self._started = False
        self._add_workers(self._processors.values())
        self._progress.listen(self._on_progress)
        self._gaps = RetentionGaps()
        self._unreadable: dict[TopicPartition, tuple[str, float]] = {}
        """Partitions whose log cannot be read further: the reason, and when to retry."""
        self._draining = False

    def _add_workers(self, added: Iterable[Processor]) -> None:
        """A worker for the topics of each tenant and kind."""
        by_key: dict[tuple[str, Kind, str], list[Processor]] = {}
        for processor in added:
            # Topics of a route come and go one by one.
            apart = processor.topic if processor.kind == "routes" else ""
            by_key.setdefault((processor.tenant, processor.kind, apart), []).append(processor)
        for processors in by_key.values():
            worker = Worker(
                self._context, processors, self._publisher, self._turns, self._jobs_share, self._stopped
            )  # fmt: skip
            self._workers |= dict.fromkeys(worker.topics, worker)
            if self._started:
                self._running[worker] = self._context.tasks.start(worker.run())

    # ------------------------------------------------------------------ lifecycle

    async def run(self) -> None:
        """Runs until cancelled."""
        idle = IdleWatcher(self._context, self._publisher, self._gaps, self._is_idle)
        running = [
            commit_regularly(self._partitions, self._publisher, self._settings.commit_interval_s),
            watch_gaps(self._gaps, self._context.group, self.measures),
            watch_destinations(self._context.destinations, self._partitions, self._failed),
            idle.run(),
        ]
        self._started = True
        self._running = {worker: self._context.tasks.start(worker.run()) for worker in {*self._workers.values()}}
        await asyncio.wait([self._context.tasks.start(task) for task in running], return_when=asyncio.FIRST_COMPLETED)

    def add(self, processors: Collection[Processor]) -> None:
        """Adds topics of routes, whose partitions a later rebalance assigns. Those that are there already are left."""
        for processor in processors:
            present = self._processors.get(processor.topic, processor)
            assert present is processor, f"{processor.topic} has a processor: remove it first"
        new = [processor for processor in processors if processor.topic not in self._processors]
        self._processors |= {processor.topic: processor for processor in new}
        self._context.update()
        self._takeover.update()
        self._add_workers(new)

    async def remove(self, topics: Collection[str]) -> None:
        """Removes topics of routes whose partitions are not assigned any more. Unknown topics are ignored."""
        topics = self.topics.intersection(topics)
        await self._publisher.guarantee.discard(
            [TopicPartition(topic, 0) for topic in topics if self._is_last(topic, topics)]
        )
        workers = {self._workers.pop(topic) for topic in topics}
        await cancelled([self._running.pop(worker) for worker in workers if worker in self._running])
        for topic in topics:
            del self._processors[topic]
        self._context.update()
        self._takeover.update()

    def _is_last(self, topic: str, removed: Collection[str]) -> bool:
        """Whether no other topic of the same route is left."""
        tenant = self._processors[topic].tenant
        return all(each.tenant != tenant or each.topic in removed for each in self._processors.values())

    async def acquire(self, tps: Iterable[TopicPartition]) -> None:
        """Takes over assigned partitions; returns when they are open, or after a timeout."""
        await self._ownership.acquire({*tps})

    async def release(self, revoked: set[TopicPartition]) -> None:
        """Releases revoked partitions: waits for in-flight records within a deadline, and commits."""
        self._unreadable = {tp: why for tp, why in self._unreadable.items() if tp not in revoked}
        await self._ownership.release(revoked)

    async def drain(self) -> None:
        """Stops taking records, waits until in-flight records are acknowledged and HTTP requests are answered, and
        commits. There is no deadline here."""
        self._draining = True
        partitions = list(self._partitions.values())
        self._partitions.drain(partitions)
        await self._publisher.settle(partitions)
        await self._progress.until(lambda: not any(worker.waits for worker in self._workers.values()))
        await self._publisher.commit(partitions)

    async def close(self) -> None:
        """Cancels all tasks and closes the producers; commits nothing."""
        self._draining = True
        await self._ownership.end_takeovers()
        await self._context.tasks.close()
        await self._publisher.guarantee.close()

    # ------------------------------------------------------------------ status

    @property
    def partitions(self) -> Mapping[TopicPartition, Partition]:
        """Partitions that are owned and served."""
        return self._partitions

    def tenant_of(self, topic: str) -> str:
        """The tenant whose records a topic has; empty if it is not consumed."""
        processor = self._processors.get(topic)
        return processor.tenant.partition("/")[0] if processor else ""

    def is_lifecycle(self, topic: str) -> bool:
        """Whether a topic has counts, labels or rollouts of models in production."""
        processor = self._processors.get(topic)
        return processor is not None and processor.kind == "lifecycle"

    @property
    def assigned(self) -> frozenset[TopicPartition]:
        """Lane partitions assigned to this worker, served or not."""
        return self._ownership.assigned

    @property
    def unserved(self) -> list[str]:
        """Why assigned partitions are not served: topics or partitions that they need do not exist."""
        return self._ownership.unserved

    @property
    def settled(self) -> bool:
        """Whether the takeover of the last assignment is complete."""
        return self._ownership.settled

    @property
    def fault(self) -> str | None:
        """What processing waits for; None if there is no fault."""
        of_tenants = [faults.current for faults in self._context.faults.values() if faults.current is not None]
        return next(iter([*of_tenants, *(reason for reason, _ in self._unreadable.values())]), None)

    @property
    def restoring(self) -> int | None:
        """Changelog records still to be read before partitions open; None if nothing is being restored."""
        return self._restore.behind

    @property
    def restored_records(self) -> int:
        """Changelog records read since the start."""
        return self._restore.records

    @property
    def progress(self) -> int:
        """Grows with every change; a lane that has work but no progress is stalled."""
        return self._progress.count

    @property
    def busy(self) -> bool:
        """Whether there is work that should be making progress."""
        return self.busy_besides(())

    def busy_besides(self, tenants: Collection[str]) -> bool:
        """Like `busy`, without records of these tenants, which may wait for long."""
        pending = (
            p.pending for p in self._partitions.values() if not tenants or self.tenant_of(p.tp.topic) not in tenants
        )
        return any(pending) or bool(self._publisher.publishing)

    @property
    def backlogged(self) -> bool:
        """Whether more requests or records of routes are queued than one micro-batch takes."""
        return any(worker.backlogged for worker in {*self._workers.values()} if worker.kind in ("requests", "routes"))

    def tenant_snapshots(self) -> tuple[TenantSnapshot, ...]:
        """Counters of every tenant, with its pending records."""
        pending = Counter[str]()
        for tp, partition in self._partitions.items():
            pending[tp.topic] += partition.pending
        return tuple(
            processor.counters.snapshot(pending[topic])
            for topic, processor in self._processors.items()
            if processor.kind == "requests"
        )

    def check_topics(self) -> None:
        """Takes partitions over again if their topics have changed."""
        if not self._draining:
            self._ownership.check_topics()

    def take_over_again(self, tenant: str) -> None:
        """Takes the partitions of a tenant over again, unless that is being done."""
        if not self._draining:
            self._ownership.take_over_again(tenant)

    # ------------------------------------------------------------------ fetched

    @property
    def topics(self) -> frozenset[str]:
        return frozenset(self._processors)

    @property
    def kinds(self) -> Mapping[str, Kind]:
        """The kind of the records of each topic."""
        return {topic: processor.kind for topic, processor in self._processors.items()}

    def full(self, tps: set[TopicPartition]) -> set[TopicPartition]:
        """Lane partitions that must not be fetched now: not owned, or without room."""
        ours = {tp for tp in tps if tp.topic in self._processors}
        now = time.monotonic()
        stopped_topics = {topic for topic, processor in self._processors.items() if self._stopped(processor.tenant)}
        stopped = {tp for tp in ours if tp.topic in stopped_topics} if stopped_topics else set()
        unreadable = {tp for tp, (_, until) in self._unreadable.items() if now < until and tp in ours}
        return stopped | unreadable | without_room(ours, self._partitions, self._settings.buffer_bytes_max)

    async def wait_for_room(self, timeout_s: float) -> None:
        self._context.room.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._context.room.wait()

    def feed(self, tp: TopicPartition, records: Records) -> None:
        """Queues a fetched batch. Batches of partitions that are not owned are dropped: a takeover seeks first."""
        partition = self._partitions.get(tp)
        if partition is None or not partition.running or not records:
            return
        if self._ownership.paused(self._processors[tp.topic].tenant):
            return
        self._unreadable.pop(tp, None)
        expected = partition.next_fetch
        if (back_to := self._partitions.queue(partition, records)) is not None:
            log.info("seek_back", topic=tp.topic, partition=tp.partition, expected=back_to, got=records[0].offset)
            self._context.group.consumer.seek(tp, back_to)
        elif partition.next_fetch > expected:
            if records[0].offset > expected:
                self._gaps.note(tp, expected, records[0].offset)
            self._progress.advance(partition)

    def unreadable(self, tp: TopicPartition, reason: str) -> None:
        """The log of a partition cannot be read further: logs it, and retries later; the others are still read."""
        if tp not in self._unreadable:
            log.error("log_unreadable", reason=reason)
        self._unreadable[tp] = reason, time.monotonic() + UNREADABLE_S

    def suspect(self) -> None:
        for partition in self._partitions.values():
            partition.mark_suspect()

    def wake(self, topic: str) -> None:
        """The processor of `topic` has requests that came over HTTP."""
        self._workers[topic].wake()

    def resume(self, tenant: str) -> None:
        """Records of a tenant that were put back may be processed now: their models have been loaded."""
        for worker in self._workers.values():
            if worker.tenant == tenant:
                worker.resume()

    # ------------------------------------------------------------------

    def _stopped(self, tenant: str) -> bool:
        """Whether fetching and processing are paused for a tenant."""
        return self._draining or self._ownership.paused(tenant)

    def _is_idle(self, partition: Partition) -> bool:
        return self._workers[partition.tp.topic].is_idle(partition)

    def _failed(self, partition: Partition, error: BaseException) -> None:
        self._ownership.failed(partition, error)

    def _on_progress(self, partition: Partition | None) -> None:
        """Wakes the worker of a partition (None: all workers), and those that wait for in-flight bytes."""
        if partition is None:
            for worker in self._workers.values():
                worker.wake()
        elif (concerned := self._workers.get(partition.tp.topic)) is not None:
            concerned.wake()
        while self._context.blocked:
            self._context.blocked.pop().set()
        self._context.room.set()

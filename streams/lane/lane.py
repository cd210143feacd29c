"""The batch lane: take what waits, score it, publish, acknowledge, commit.

A request's way, read from top to bottom: `feed` (fetched) → `_take` → `_process` (scored) → `_publish` → `_landed`
(acknowledged) → `_commit_regularly`. Ownership of partitions comes and goes with `acquire` and `release`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any, get_args

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError

from inferd.streams.group import Records
from inferd.streams.kafka import UNCHECKED, Destinations, KnownTopics, RetentionGaps, unserved_reasons
from inferd.streams.lane.assignment import Group, Order, Takeover
from inferd.streams.lane.backoff import Faults
from inferd.streams.lane.guarantees import PUBLISH_ERRORS, Guarantee
from inferd.streams.lane.micro_batches import MicroBatches
from inferd.streams.lane.output_batch import Effects
from inferd.streams.lane.partition import Flight, Partition, by_topic
from inferd.streams.lane.processor import Kind, Stage
from inferd.streams.lane.scheduling import without_room
from inferd.streams.lane.watchers import watch_destinations, watch_gaps
from inferd.streams.settings import StreamSettings
from inferd.streams.state import Restore
from inferd.streams.tasks import cancelled, when_done
from inferd.streams.telemetry import LaneMeasures, Step, TenantSnapshot

log = structlog.get_logger(__name__)

IDLE_INTERVAL_S = 1.0
STEP_OF_PUBLISHING: dict[Kind, Step] = {"requests": "respond", "chunks": "store"}
UNREADABLE_S = 5.0
"""After how long a log that could not be read is tried again."""
SHARE_PAUSE_S_MAX = 1.0
POSITION_TIMEOUT_S = 0.1


class Lane:
    """Takes the records of every stage of one worker, partition by partition in order, in micro-batches."""

    def __init__(
        self,
        settings: StreamSettings,
        stages: Iterable[Stage],
        group: Group,
        guarantee: Callable[[Lane], Guarantee],
        measures: LaneMeasures,
        crashed: Callable[[BaseException], None],
        topics: KnownTopics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`crashed` is called with what a task of the lane raised and nobody expected."""
        self.measures = measures
        self.crashed = crashed
        self.destinations: Destinations = UNCHECKED
        """What the topics that are written to accept."""
        self.partitions: dict[TopicPartition, Partition] = {}
        self.progress = 0
        """Grows with everything that moves; a lane with work whose progress stands still is stalled."""
        self._settings = settings.lane
        self._group_settings = settings.group
        self._faults = Faults(settings.group.request_timeout_s)
        self._stages = {stage.topic: stage for stage in stages}
        self._group = group
        self._guarantee = guarantee(self)
        self._clock = clock
        self._restore = Restore(settings, self._move)
        self._takeover = Takeover(
            settings.group, self._stages, group, self._guarantee, self._restore, self._faults, measures, topics
        )
        self._assigned: set[TopicPartition] = set()
        self._generation = -1
        """Of the membership that assigned them."""
        self._gaps = RetentionGaps()
        self._unreadable: dict[TopicPartition, tuple[str, float]] = {}
        """Partitions whose log cannot be read further: why, and when that is tried again."""
        self._epoch = 0
        self._paused = self._draining = False
        self._requests_came = False
        """Whether requests were scored since the last chunk of a job."""
        self._work: dict[Kind, asyncio.Event] = {kind: asyncio.Event() for kind in get_args(Kind)}
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._moved = asyncio.Event()
        self._batches = MicroBatches(settings.lane, self._stages, self.wake)
        self._publishing: dict[Partition, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ownership: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Works until cancelled; never ends by itself."""
        kinds: set[Kind] = {stage.kind for stage in self._stages.values()}
        watchers = [
            watch_gaps(self._gaps, self._group, self.measures),
            watch_destinations(lambda: self.destinations, lambda: [*self.partitions.values()], self.failed),
        ]
        running = [self._commit_regularly(), self._idle_regularly(), *watchers, *map(self._run_kind, kinds)]
        await asyncio.wait([self._start(task) for task in running], return_when=asyncio.FIRST_COMPLETED)

    async def _run_kind(self, kind: Kind) -> None:
        while True:
            await self._work[kind].wait()
            self._work[kind].clear()
            if kind == "requests":
                await self._wait_to_fill()
            while (taken := self._take(kind)) or self._waiting(kind):
                started = time.perf_counter()
                await self._process(kind, taken)
                self._moved.set()
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
        if not self._settings.batch_wait_ms or not any(p.queued for p in self.partitions.values()):
            return
        work = self._work["requests"]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.batch_wait_ms / 1000):
                while sum(p.queued for p in self.partitions.values()) < self._settings.batch_rows_max:
                    work.clear()
                    await work.wait()

    async def drain(self) -> None:
        """Takes nothing more, waits until what is in flight is acknowledged and what was asked directly is answered,
        and commits; has no deadline itself."""
        self._draining = True
        partitions = list(self.partitions.values())
        for partition in partitions:
            self._forget(partition, partition.drain())
        await self._settle(partitions)
        while any(map(self._waiting, self._work)):
            self._moved.clear()
            await self._moved.wait()
        if partitions:  # without any, there may be no consumer yet
            await self._guarantee.commit(self._group.consumer, partitions)

    async def close(self) -> None:
        """Ends every task and lets go of the producers; nothing is committed any more."""
        self._epoch += 1
        self._draining = True
        await cancelled({*self._tasks, *self._publishing.values()})
        await self._guarantee.close()

    @property
    def fault(self) -> str | None:
        """What work waits for, in words; None while all is well."""
        return self._faults.current or next((reason for reason, _ in self._unreadable.values()), None)

    def on_denied(self, denied: Callable[[], None]) -> None:
        """Has `denied` called where the broker refuses something for want of a right."""
        self._faults.denied = denied

    @property
    def settled(self) -> bool:
        """Whether the last assignment has been taken over."""
        return self._ownership is not None and self._ownership.done() and not self._ownership.cancelled()

    @property
    def restoring(self) -> int | None:
        """How many changelog records are still to be read before partitions are open; None while none are restored."""
        return self._restore.behind

    @property
    def restored_records(self) -> int:
        """Changelog records read since the start."""
        return self._restore.records

    def tenant_snapshots(self) -> tuple[TenantSnapshot, ...]:
        """Counters of every tenant, with what its partitions hold."""
        pending = Counter[str]()
        for tp, partition in self.partitions.items():
            pending[tp.topic] += partition.pending
        return tuple(
            stage.counters.snapshot(pending[topic]) for topic, stage in self._stages.items() if stage.kind == "requests"
        )

    @property
    def busy(self) -> bool:
        """Whether there is work that should be making progress."""
        return any(p.pending for p in self.partitions.values()) or bool(self._publishing)

    # ------------------------------------------------------------------ fetched

    @property
    def topics(self) -> frozenset[str]:
        return frozenset(self._stages)

    def full(self, tps: set[TopicPartition]) -> set[TopicPartition]:
        """Lane partitions that may not be fetched now: not owned, or with enough waiting."""
        ours = {tp for tp in tps if tp.topic in self._stages}
        if self._paused or self._draining:
            return ours
        now = time.monotonic()
        unreadable = {tp for tp in ours if now < self._unreadable.get(tp, ("", 0.0))[1]}
        return unreadable | without_room(ours, self.partitions, self._settings.buffer_bytes_max)

    async def wait_for_room(self, timeout_s: float) -> None:
        self._room.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._room.wait()

    def feed(self, tp: TopicPartition, records: Records) -> None:
        """Queues a fetched batch. What is not owned is dropped: whoever takes a partition over seeks before."""
        partition = self.partitions.get(tp)
        if partition is None or not partition.running or self._paused or not records:
            return
        self._unreadable.pop(tp, None)
        queued, expected = partition.queued, partition.next_fetch
        back_to = partition.offer(records)
        if back_to is not None:
            log.info("seek_back", topic=tp.topic, partition=tp.partition, expected=back_to, got=records[0].offset)
            self._group.consumer.seek(tp, back_to)
            return
        if partition.queued > queued:
            if records[0].offset > expected:
                self._gaps.note(tp, expected, records[0].offset)
            self._stages[tp.topic].counters.requests_in += partition.queued - queued
            self._move()

    def wake(self) -> None:
        """There is work that was not fetched."""
        for work in self._work.values():
            work.set()

    def unreadable(self, tp: TopicPartition, reason: str) -> None:
        """The log of a partition cannot be read further: says so, and reads the others; this one is tried again."""
        if tp not in self._unreadable:
            log.error("log_unreadable", reason=reason)
        self._unreadable[tp] = reason, time.monotonic() + UNREADABLE_S

    def suspect(self) -> None:
        for partition in self.partitions.values():
            partition.doubt()

    # ------------------------------------------------------------------ taken, scored, published

    def _take(self, kind: Kind) -> list[tuple[Partition, Records]]:
        if self._paused or self._draining:
            return []
        taken = self._batches.take(kind, self.partitions, self._publishing)
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
                    partition.put_aside(part)
                    self._forget(partition, len(part))
                else:
                    self._batches.put_back(partition, part[sum(effects.records for effects in steps) :])
                    self._publish(partition, steps)
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

    async def _idle_regularly(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_INTERVAL_S):
                    await self._idle.wait()
            self._idle.clear()
            for partition in list(self.partitions.values()):
                position = await self._position(partition)
                if not self._resting(partition):
                    continue
                effects = self._stage(partition).idle_effects(partition.tp, partition.departed, self._now_ms())
                if effects is None and position is not None and not (partition.pending or partition.flying):
                    effects = self._pass_by(partition, position)
                if effects is not None:
                    self._publish(partition, [effects])

    def _resting(self, partition: Partition) -> bool:
        """Whether effects of time alone may be published now."""
        if self._paused or self._draining or not partition.running:
            return False
        return self._batches.unit(partition) not in self._batches.busy_units(self.partitions, self._publishing)

    async def _position(self, partition: Partition) -> int | None:
        """Where the fetcher stands; None if that is not known."""
        with contextlib.suppress(IllegalStateError, *PUBLISH_ERRORS):
            async with asyncio.timeout(POSITION_TIMEOUT_S):
                position: int = await self._group.consumer.position(partition.tp)
                return position
        return None

    def _pass_by(self, partition: Partition, position: int) -> Effects | None:
        """Effects that only commit past what is no record, so that a group that has nothing to do has no lag."""
        expected = partition.next_fetch
        if (back_to := partition.pass_by(position)) is not None:
            self._group.consumer.seek(partition.tp, back_to)
        if partition.next_fetch == expected:
            return None
        self._gaps.note(partition.tp, expected, position)
        return Effects(position, 0, [])

    def _publish(self, partition: Partition, steps: Sequence[Effects]) -> None:
        if not steps:
            return
        for effects in steps:
            for table, changes in effects.changes.items():
                table.stage(changes)
        task = self._start(self._publish_now(partition, steps))
        self._publishing[partition] = task
        when_done(task, lambda _: self._published(partition), self.crashed)

    async def _publish_now(self, partition: Partition, steps: Sequence[Effects]) -> None:
        rewinds = partition.rewinds
        try:
            for effects in steps:
                if effects.after_commit:
                    await self._commit_now(partition)
                if partition.rewinds != rewinds:
                    return
                effects.published_at = time.perf_counter()
                await self._guarantee.publish(partition, effects, self._now_ms())
        except PUBLISH_ERRORS as error:
            if partition.rewinds == rewinds:
                self.failed(partition, error)

    async def _commit_now(self, partition: Partition) -> None:
        """Waits until all that has departed is acknowledged, and commits it; `KafkaError` where that is refused."""
        while partition.flying:
            self._moved.clear()
            await self._moved.wait()
        await self._guarantee.commit(self._group.consumer, [partition])
        if partition.committed < partition.acked:
            raise CommitFailedError("what comes before cannot be committed")

    def _published(self, partition: Partition) -> None:
        self._publishing.pop(partition, None)
        self._move()

    # ------------------------------------------------------------------ acknowledged, committed

    def landed(self, partition: Partition, flight: Flight) -> None:
        """Everything of a taken range is acknowledged."""
        self._faults.clear()
        stage = self._stage(partition)
        for table, changes in flight.effects.changes.items():
            table.apply(changes, flight.written[table])
        if stage.kind == "requests":
            self.measures.end_to_end.observe_since(flight.effects.timestamps, self._now_ms())
        if flight.effects.records and (step := STEP_OF_PUBLISHING.get(stage.kind)) is not None:
            self.measures.observe_step(step, time.perf_counter() - flight.effects.published_at)
        stage.counters.add(flight.effects.tally)
        stage.landed(partition.tp.partition, flight.effects)
        if stage.kind == "jobs":
            self._idle.set()
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
        await self._end_takeovers()
        self._assigned, self._generation = {tp for tp in tps if tp.topic in self._stages}, self._group.generation
        self._ownership = self._start(self._own(self._epoch))
        await asyncio.wait({self._ownership}, timeout=self._group_settings.request_timeout_s)

    async def _end_takeovers(self) -> None:
        """Cancels what takes partitions over, and waits for its end: the next one must not meet it half done."""
        await cancelled([task for task in (self._ownership, self._recovery) if task is not None])

    async def _own(self, epoch: int, *, after_failure: bool = False) -> None:
        generation = self._generation

        def ours() -> bool:
            return self._epoch == epoch and self._group.generation == generation

        def opened(partitions: dict[TopicPartition, Partition]) -> None:
            for before in self.partitions.values():
                self._close(before)
            self.partitions = partitions

        order = Order(
            tps=set(self._assigned), before=self.partitions, generation=generation, ours=ours, opened=opened,
            after_failure=after_failure,
        )  # fmt: skip
        await self._takeover.run(order)
        self._paused = False
        self._move()

    async def release(self, revoked: set[TopicPartition]) -> None:
        """Gives partitions up: drops what waits, finishes what is in flight within a deadline, commits, and no more."""
        self._epoch += 1
        await self._end_takeovers()
        self._assigned -= revoked
        self._unreadable = {tp: why for tp, why in self._unreadable.items() if tp not in revoked}
        released = [self.partitions.pop(tp) for tp in list(self.partitions) if tp in revoked]
        for partition in released:
            self._forget(partition, partition.drain())
        if not released:
            self._takeover.close(revoked)
            return
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.revoke_timeout_s):
                await self._settle(released)
        except TimeoutError:
            log.warning("release_timed_out", in_flight=sum(p.in_flight for p in released))
            self._cancel_publishing(released)
        await self._guarantee.commit(self._group.consumer, released)
        for partition in released:
            self._rewind(partition)
            partition.close()
        self._takeover.close(revoked)
        _ = self._start(self._guarantee.release([partition.tp for partition in released]))
        log.info(
            "partitions_released", partitions=by_topic(p.tp for p in released),
            ms=round((time.monotonic() - started) * 1000),
        )  # fmt: skip

    async def _settle(self, partitions: Collection[Partition]) -> None:
        """Waits until nothing of `partitions` is being published or in flight."""
        while any(p.flying or p in self._publishing for p in partitions):
            self._moved.clear()
            await self._moved.wait()

    # ------------------------------------------------------------------ failure

    def failed(self, partition: Partition, error: BaseException) -> None:
        """Something could not be published: everything unacknowledged is fetched and done again."""
        if partition.state == "draining":
            self._rewind(partition)
            self._move()
        elif partition.running and (self._recovery is None or self._recovery.done()):
            self._recovery = self._start(self._recover(error, self._epoch))

    async def _recover(self, error: BaseException, epoch: int) -> None:
        self._paused = True
        self._faults.note("results cannot be published", error)
        await self.destinations.learn(error, {t for p in self.partitions.values() for t in p.late_replies(0.0)})
        await self._put_down()
        # A topic that refuses writes lets a new producer start all the same: without acknowledgements, ever slower.
        await self._faults.pause(self._guarantee.pause_s)
        await self._own(epoch, after_failure=True)

    async def _put_down(self) -> None:
        """Forgets what is not acknowledged, and lets the producers go."""
        self._cancel_publishing(self.partitions.values())
        for partition in self.partitions.values():
            self._rewind(partition)
        await self._guarantee.close()

    # ------------------------------------------------------------------ topics that change

    @property
    def assigned(self) -> frozenset[TopicPartition]:
        """Lane partitions that the group has given to this worker, served or not."""
        return frozenset(self._assigned)

    @property
    def unserved(self) -> list[str]:
        """Why partitions that are assigned here are not served: what they need does not exist."""
        return unserved_reasons(self._unserved(), self._takeover.lacking)

    def _unserved(self) -> set[TopicPartition]:
        return self._assigned - self._takeover.servable(self._assigned)

    def look_at_topics(self) -> None:
        """Takes all partitions over anew where topics were deleted, created again or grown since the last takeover."""
        recovering = self._recovery is not None and not self._recovery.done()
        busy = self._paused or self._draining or recovering or not self.settled
        if not busy and self._have_topics_changed():
            self._recovery = self._start(self._start_over(self._epoch))

    def _have_topics_changed(self) -> bool:
        if self._assigned - self._unserved() != set(self.partitions):
            return True
        return any(map(self._takeover.outdated, self.partitions.values()))

    async def _start_over(self, epoch: int) -> None:
        log.warning("topics_changed", unserved=self.unserved)
        self._paused = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.revoke_timeout_s):
                await self._settle(self.partitions.values())
        await self._guarantee.commit(self._group.consumer, self.partitions.values())
        await self._put_down()
        await self._own(epoch)

    # ------------------------------------------------------------------

    def _cancel_publishing(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            if (task := self._publishing.get(partition)) is not None:
                task.cancel()

    def _stage(self, partition: Partition) -> Stage:
        return self._stages[partition.tp.topic]

    def _rewind(self, partition: Partition) -> None:
        """Nothing counts that is not acknowledged: neither records, nor what they changed."""
        dropped = partition.in_the_air()
        self._forget(partition, partition.rewind())
        stage, number = self._stage(partition), partition.tp.partition
        for table in stage.tables:
            if number in table.owned:
                table.partition(number).discard()
        stage.rewound(number, dropped)

    def _close(self, partition: Partition) -> None:
        """Another `Partition` takes its place."""
        if partition.pending or partition.flying:
            self._rewind(partition)
        partition.close()

    def _forget(self, partition: Partition, records: int) -> None:
        """Records that will be fetched again, here or elsewhere, count as never seen."""
        self._stages[partition.tp.topic].counters.requests_in -= records

    def _move(self) -> None:
        self.progress += 1
        self.wake()
        self._room.set()
        self._moved.set()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        when_done(task, self._ended, self.crashed)
        return task

    def _ended(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.crashed(error)

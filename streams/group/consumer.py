"""Faust's transport, with two changes: fetched batches of lane topics go straight to their lane, and the consumer runs
on the app's own event loop.

Faust passes single messages through tasks and queues. A lane processes batches, as the broker returns them. So records
of lane topics are taken from the fetch result here, before Faust's conductor and streams; all other records take
Faust's path. Faust runs aiokafka's consumer in a thread with its own loop. Threads that contend for the interpreter
lock (GIL) switch every 5 ms, so here the consumer's calls run on the app's loop.

Private names used, each covered by `tests/unit/streams/group/test_consumer.py`, which fails when a library changes it:
`Consumer._getmany`, `Consumer._new_consumer_thread`, `ConsumerThread._create_worker_consumer` (the hooks themselves),
`ServiceThread._thread_started`, `Service._stopped`, `Service._default_start`, `Service._default_stop_*` (a service
thread without a thread), `AIOKafkaConsumerThread._consumer` (to reach aiokafka's consumer), and of that consumer
`_isolation_level`, `_fetch_max_wait_ms`, `_client` (to refresh its topic metadata), `_coordinator` (the only immediate
source of the generation), `_coordinator._pending_exception` (an error that the coordinator keeps until it is read:
Faust never reads it), `_fetcher` (to hold full partitions), its `_fetch_task` (no callback reports its end) and
`_subscription.assign_from_subscribed` (for excluded topics) and `_subscription.subscription._topics` (to change the
topics); of Faust's conductor `_topics` and `_update_indices` (likewise).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import cache
from typing import Any, Protocol, cast

import faust
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from faust.exceptions import ConsumerNotStarted
from faust.transport.consumer import RecordMap
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from inferd.streams.group import membership
from inferd.streams.inference import Record
from inferd.streams.kafka import UnreadableLogError

log = structlog.get_logger(__name__)

FETCH_MAX_WAIT_MS = 100
WAIT_WHILE_FULL_S = 0.05
"""Maximum wait of a fetch while a lane partition has no room: room may appear at any moment."""
METADATA_TIMEOUT_S = 5.0
"""How long a change of the subscription waits for the metadata of new topics."""
DENIED_PAUSE_S = 0.2
"""Wait after a fetch that the broker has denied."""

Records = Sequence[Record]


class Intake(Protocol):
    """The interface of a lane to the consumer."""

    @property
    def topics(self) -> frozenset[str]:
        """Topics whose records go to the lane instead of to Faust."""

    def full(self, tps: set[TopicPartition]) -> set[TopicPartition]:
        """The partitions among `tps` that must not be fetched now."""

    async def wait_for_room(self, timeout_s: float) -> None:
        """Returns when a partition has room again, or after `timeout_s`."""

    def feed(self, tp: TopicPartition, records: Records) -> None:
        """Queues a fetched batch; drops records that are not owned or were seen before."""

    def unreadable(self, tp: TopicPartition, reason: str) -> None:
        """The log of a partition cannot be read any further."""

    def suspect(self) -> None:
        """A fetch was interrupted: records it consumed may be missing from the next one."""

    async def release(self, revoked: set[TopicPartition]) -> None:
        """Partitions are being revoked: finish or drop in-flight records, and commit acknowledged ones."""


class LoopConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread without a thread: it runs on the app's event loop, and calls are made directly."""

    wait_for_shutdown = False

    def __init__(self, consumer: LaneConsumer, **options: Any) -> None:
        options["loop"] = loop = asyncio.get_running_loop()
        super().__init__(consumer, thread_loop=loop, **options)

    async def start(self) -> None:
        self._thread_started.set()
        await self._default_start()
        await self.on_thread_started()

    async def call_thread(self, fun: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        result = fun(*args, **kwargs)
        return await result if asyncio.iscoroutine(result) or asyncio.isfuture(result) else result

    async def stop(self) -> None:
        """Also stops aiokafka's consumer, so that it leaves the group at once."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        await self.on_thread_stop()
        await self._default_stop_children()
        await self._default_stop_futures()
        await self._default_stop_exit_stacks()
        self.set_shutdown()

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        membership.install()
        consumer = super()._create_worker_consumer(transport)
        # Faust reads uncommitted records unless it is transactional; requests of aborted transactions must be skipped.
        consumer._isolation_level = "read_committed"  # noqa: SLF001
        # Faust lets the broker hold a fetch for 1.5 s, and a node has one fetch at a time: a partition that is not
        # part of it, because its last records were not taken yet, would wait as long beside an idle one.
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS  # noqa: SLF001
        subscription: Any = consumer._subscription  # noqa: SLF001
        assign = subscription.assign_from_subscribed
        # A single partition that may not be read would keep aiokafka from reading others of the same node.
        subscription.assign_from_subscribed = lambda tps: assign(self._allowed(tps))
        return consumer

    def _allowed(self, tps: Iterable[TopicPartition]) -> list[TopicPartition]:
        excluded = cast(LaneApp, self.app).excluded
        return [tp for tp in tps if tp.topic not in excluded]


class LaneConsumer(driver.Consumer):
    """Faust's consumer; batches of lane topics go to the app's intake instead of to its streams."""

    @property
    def intake(self) -> Intake:
        return cast(LaneApp, self.app).intake

    @property
    def aiokafka(self) -> AIOKafkaConsumer:
        """aiokafka's own consumer; raises `ConsumerNotStarted` before the start."""
        return self._thread._ensure_consumer()  # noqa: SLF001

    @property
    def fetching(self) -> bool:
        """Whether aiokafka's fetcher task is alive: an unexpected exception kills it silently."""
        fetcher: Any = self.aiokafka._fetcher  # noqa: SLF001
        return not fetcher._fetch_task.done()  # noqa: SLF001

    @property
    def generation(self) -> int:
        """Generation of the membership according to the coordinator; -1 after the group has removed this member."""
        coordinator: Any = self.aiokafka._coordinator  # noqa: SLF001
        return int(coordinator.generation)

    def exclude(self, topics: frozenset[str]) -> None:
        """Stops consuming these topics but continues with all others; partitions are reassigned as needed.

        Call it regularly: an error of the coordinator persists until it is read.
        """
        app = cast(LaneApp, self.app)
        changed, app.excluded = topics != app.excluded, topics
        with contextlib.suppress(ConsumerNotStarted):
            coordinator: Any = self.aiokafka._coordinator  # noqa: SLF001
            if coordinator and (changed or coordinator._pending_exception is not None):  # noqa: SLF001
                self.rejoin()

    def rejoin(self) -> None:
        """Reads the error of the coordinator, and joins the group again."""
        coordinator: Any = self.aiokafka._coordinator  # noqa: SLF001
        try:
            coordinator.check_errors()
        except KafkaError as error:
            log.info("group_rejoined", after=f"{type(error).__name__}: {error}"[:200])
        # Until the refresh, the metadata lacks topics that have become readable again.
        self.aiokafka._client.force_metadata_update()  # noqa: SLF001
        coordinator.request_rejoin()

    async def change_topics(self, add: Collection[str], remove: Collection[str]) -> None:
        """Changes the subscription; the group then rebalances once. Not to be called during a rebalance.

        Until the rebalance the assignment holds, so that what is in flight can be committed: aiokafka's own `subscribe`
        drops it at once. Faust's own way subscribes 45 s later, and forgets a change during a rebalance.
        """
        conductor: Any = self.app.topics
        kept = {topic for topic in conductor._topics if not remove or not {*topic.topics} <= {*remove}}  # noqa: SLF001
        new = {*add} - {name for topic in kept for name in topic.topics}
        added = {self.app.topic(n, key_serializer="raw", value_serializer="raw", acks=False) for n in new}
        conductor._topics = kept | added  # noqa: SLF001
        topics = frozenset(await conductor._update_indices())  # noqa: SLF001
        subscription: Any = self.aiokafka._subscription  # noqa: SLF001
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(METADATA_TIMEOUT_S):
                await self.aiokafka._client.set_topics(topics)  # noqa: SLF001
        subscription.subscription._topics = topics  # noqa: SLF001
        self.rejoin()

    @property
    def was_replaced(self) -> bool:
        """Whether another member has joined with our instance id."""
        with contextlib.suppress(ConsumerNotStarted):
            coordinator = self.aiokafka._coordinator  # noqa: SLF001
            return coordinator is not None and membership.was_replaced(coordinator)
        return False

    def _new_consumer_thread(self) -> LoopConsumerThread:
        return LoopConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> RecordMap:  # noqa: ASYNC109
        # A copy: Faust changes its set meanwhile, and aiokafka takes an empty set as *all*.
        active = kafka_tps(active_partitions or ())
        if excluded := cast(LaneApp, self.app).excluded:
            active = {tp for tp in active if tp.topic not in excluded}
        full = self.intake.full(active)
        self._hold(full)
        if full:
            active -= full
            timeout = min(timeout, WAIT_WHILE_FULL_S)
        if not active:
            await self.intake.wait_for_room(min(timeout, WAIT_WHILE_FULL_S))
            return {}
        try:
            fetched = await super()._getmany(cast(set[TP], active), timeout)
        except UnreadableLogError as error:
            self.intake.suspect()
            self.intake.unreadable(error.tp, str(error.args[0]))
            return {}
        except (GroupAuthorizationFailedError, TopicAuthorizationFailedError):
            self.intake.suspect()
            cast(LaneApp, self.app).denied()
            await asyncio.sleep(DENIED_PAUSE_S)
            return {}
        except BaseException:
            self.intake.suspect()
            raise
        return self._divert(fetched)

    def _hold(self, full: set[TopicPartition]) -> None:
        """Keeps the fetches of other partitions from waiting until these have room."""
        with contextlib.suppress(ConsumerNotStarted):
            fetcher: Any = self.aiokafka._fetcher  # noqa: SLF001
            fetcher.hold(full)

    def _divert(self, fetched: RecordMap) -> RecordMap:
        rest = {}
        for tp, records in fetched.items():
            if tp.topic not in self.intake.topics:
                rest[tp] = records
            elif self.flow_active:
                self.intake.feed(TopicPartition(*tp), cast(Records, records))
            else:
                self.intake.suspect()
        return rest

    async def perform_seek(self) -> None:
        """Does nothing: the lane seeks its partitions itself. Faust would read committed offsets, and if the broker is
        down, its rebalance would never finish."""

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await self.intake.release(kafka_tps(revoked))
        await super().on_partitions_revoked(revoked)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Does nothing for lane topics: they have no stream, and the lane has its own stall detector."""
        if tp.topic not in self.intake.topics:
            super().verify_event_path(now, tp)


def kafka_tps(tps: Iterable[TP]) -> set[TopicPartition]:
    """Faust's topic-partitions as aiokafka's own."""
    return {_kafka_tp(tp) for tp in tps}


@cache
def _kafka_tp(tp: TP) -> TopicPartition:
    # Each fetch converts all partitions: a cached one takes a tenth of the time.
    return TopicPartition(tp.topic, tp.partition)


class LaneTransport(driver.Transport):
    """The transport whose consumer is `LaneConsumer`."""

    Consumer = LaneConsumer


class LaneApp(faust.App):
    """A Faust app whose consumer hands batches of lane topics to `intake`."""

    intake: Intake
    partitions_max: Callable[[str], int | None] = staticmethod(lambda _topic: None)
    """Maximum partitions of a topic that are assigned; None: unlimited."""
    denied: Callable[[], None]
    """Called when the broker denies a fetch."""
    excluded: frozenset[str] = frozenset()
    """Topics that are neither assigned nor fetched."""

    def _new_transport(self) -> LaneTransport:
        return LaneTransport(self.conf.broker_consumer, self)

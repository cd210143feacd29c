"""The behaviour of Faust and aiokafka that the consumer relies on; fails if a library changes it."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiokafka
import faust
import mode
import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from faust.assignor.partition_assignor import PartitionAssignor
from faust.transport.consumer import Consumer as FaustConsumer
from faust.transport.consumer import ConsumerThread
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.threads import QueueServiceThread, ServiceThread

from inferd.schemas.connection import KafkaConnection
from inferd.streams.faust_app import create_app
from inferd.streams.group import consumer as fetch_module
from inferd.streams.group.consumer import (
    FETCH_MAX_WAIT_MS,
    WAIT_WHILE_FULL_S,
    LaneApp,
    LaneConsumer,
    LoopConsumerThread,
)
from inferd.streams.kafka.record_batches import UnreadableLogError
from inferd.streams.settings import GroupSettings, LaneSettings, StreamSettings

LANE_TOPIC, OTHER_TOPIC = "ns.default.requests", "ns.default.jobs"
LANE_TP, OTHER_TP = TP(LANE_TOPIC, 0), TP(OTHER_TOPIC, 0)


def kafka_tp(tp: TP) -> TopicPartition:
    return TopicPartition(tp.topic, tp.partition)


def records(tp: TP, *offsets: int) -> list[Any]:
    return [ConsumerRecord(tp.topic, tp.partition, offset, 1_000, 0, b"k", b"v", None, 1, 1, ()) for offset in offsets]


@dataclass
class FakeIntake:
    """A lane that stores the records that it is fed."""

    calls: list[str] = field(default_factory=list)
    fed: list[tuple[TopicPartition, list[int]]] = field(default_factory=list)
    full_tps: set[TopicPartition] = field(default_factory=set)
    waited_s: list[float] = field(default_factory=list)

    @property
    def topics(self) -> frozenset[str]:
        return frozenset({LANE_TOPIC})

    def full(self, tps: set[TopicPartition]) -> set[TopicPartition]:
        return tps & self.full_tps

    async def wait_for_room(self, timeout_s: float) -> None:
        self.waited_s.append(timeout_s)

    def feed(self, tp: TopicPartition, fetched: Any) -> None:
        self.fed.append((tp, [record.offset for record in fetched]))

    def unreadable(self, tp: TopicPartition, reason: str) -> None:
        self.calls.append(f"unreadable {tp.topic}/{tp.partition}: {reason}")

    def suspect(self) -> None:
        self.calls.append("suspect")

    async def release(self, revoked: set[TopicPartition]) -> None:
        self.calls.append(f"release {sorted(tp.topic for tp in revoked)}")


class FakeFetcher:
    """A fake of aiokafka's fetcher: returns prepared records, and records the calls."""

    def __init__(self) -> None:
        self.ready: list[dict[TP, list[Any]] | BaseException] = []
        self.asked: list[tuple[Any, float, int]] = []
        self.during: Callable[[], object] = lambda: None
        self.held: set[TopicPartition] = set()
        self._closed = False
        self._subscriptions = self

    def hold(self, tps: set[TopicPartition]) -> None:
        self.held = tps

    def fetch_context(self) -> Any:
        return threading.Lock()

    async def fetched_records(self, partitions: Any, timeout: float, max_records: int) -> Any:  # noqa: ASYNC109
        self.asked.append((partitions, timeout, max_records))
        self.during()
        if not self.ready:
            await asyncio.Event().wait()
        answer = self.ready.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class FakeKafkaConsumer:
    """aiokafka's consumer inside Faust's thread service."""

    def __init__(self) -> None:
        self._fetcher = FakeFetcher()
        self._closed = False
        self._max_poll_records = 100
        self.calls: list[str] = []

    async def start(self) -> None:
        self.calls.append("start")

    async def stop(self) -> None:
        self.calls.append("stop")

    async def commit(self, offsets: Any) -> None:
        self.calls.append(f"commit {offsets}")

    def assignment(self) -> set[TopicPartition]:
        return {kafka_tp(LANE_TP), kafka_tp(OTHER_TP)}


@dataclass
class Transport:
    """A Faust app whose consumer uses fakes."""

    app: LaneApp
    intake: FakeIntake
    kafka: FakeKafkaConsumer

    @property
    def consumer(self) -> LaneConsumer:
        consumer = self.app.consumer
        assert isinstance(consumer, LaneConsumer)
        return consumer

    @property
    def thread(self) -> LoopConsumerThread:
        thread = self.consumer._thread
        assert isinstance(thread, LoopConsumerThread)
        return thread

    @property
    def fetcher(self) -> FakeFetcher:
        return self.kafka._fetcher

    async def fetch(self, *tps: TP) -> Any:
        return await self.consumer._getmany(set(tps), 1.0)


def stream_settings(tmp_path: Path) -> StreamSettings:
    return StreamSettings(KafkaConnection("broker-1:9092,broker-2:9093"), "worker-1", tmp_path)


@pytest.fixture
async def transport(tmp_path: Path) -> Transport:
    app = create_app(stream_settings(tmp_path))
    app.intake = intake = FakeIntake()
    made = Transport(app, intake, FakeKafkaConsumer())
    made.thread._consumer = cast(Any, made.kafka)
    return made


# Private names


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (FaustConsumer, "_getmany", ["self", "active_partitions", "timeout"]),
        (driver.Consumer, "_new_consumer_thread", ["self"]),
        (driver.AIOKafkaConsumerThread, "_create_worker_consumer", ["self", "transport"]),
        (driver.AIOKafkaConsumerThread, "_ensure_consumer", ["self"]),
        (driver.AIOKafkaConsumerThread, "getmany", ["self", "active_partitions", "timeout"]),
        (QueueServiceThread, "call_thread", ["self", "fun", "args", "kwargs"]),
        (ServiceThread, "on_thread_started", ["self"]),
        (ServiceThread, "on_thread_stop", ["self"]),
        (ServiceThread, "set_shutdown", ["self"]),
        (mode.Service, "_default_start", ["self"]),
        (mode.Service, "_default_stop_children", ["self"]),
        (mode.Service, "_default_stop_futures", ["self"]),
        (mode.Service, "_default_stop_exit_stacks", ["self"]),
        (Fetcher, "fetched_records", ["self", "partitions", "timeout", "max_records"]),
        (FaustConsumer, "on_partitions_revoked", ["self", "revoked"]),
        (FaustConsumer, "verify_event_path", ["self", "now", "tp"]),
        (faust.App, "_new_transport", ["self"]),
    ],
)  # fmt: skip
def test_hooked_methods_have_not_changed(owner: type, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


async def test_the_parts_of_the_transport_are_ours(transport: Transport) -> None:
    assert isinstance(transport.app.transport.Consumer, type)
    assert type(transport.consumer) is LaneConsumer
    assert isinstance(transport.consumer._thread, ConsumerThread)
    assert transport.consumer.aiokafka is cast(Any, transport.kafka)
    for event in (transport.thread._thread_started, transport.thread._stopped):
        assert not event.is_set()


async def test_the_end_of_the_fetcher_shows(transport: Transport) -> None:
    task = asyncio.get_running_loop().create_future()
    cast(Any, transport.kafka)._fetcher = SimpleNamespace(_fetch_task=task)
    seen = [transport.consumer.fetching]
    task.set_result(None)
    seen.append(transport.consumer.fetching)
    assert seen == [True, False]
    assert "self._fetch_task = create_task(" in inspect.getsource(Fetcher)


async def test_the_generation_is_that_of_the_coordinator(transport: Transport) -> None:
    cast(Any, transport.kafka)._coordinator = SimpleNamespace(generation=5)
    assert transport.consumer.generation == 5
    assert driver.DEFAULT_GENERATION_ID == -1, "without a membership"
    made = inspect.getsource(AIOKafkaConsumer.start)
    assert "self._coordinator = GroupCoordinator(" in made
    assert "self.generation = OffsetCommitRequest.DEFAULT_GENERATION_ID" in inspect.getsource(
        GroupCoordinator.reset_generation
    )


# The consumer on the app's own loop


async def test_the_consumer_starts_without_a_thread_on_the_loop_of_the_app(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport.thread, "_create_consumer", lambda loop: transport.kafka)
    before = threading.active_count()
    await transport.thread.start()
    assert transport.kafka.calls == ["start"]
    assert threading.active_count() == before
    assert transport.thread.thread_loop is asyncio.get_running_loop()
    assert transport.thread._thread is None
    await transport.thread.stop()


async def test_a_call_to_the_thread_is_a_call(transport: Transport) -> None:
    async def coroutine(a: int, *, b: int) -> int:
        return a + b

    future = asyncio.get_running_loop().create_future()
    future.set_result(7)
    assert await transport.thread.call_thread(coroutine, 1, b=2) == 3
    assert await transport.thread.call_thread(lambda a: a * 2, 4) == 8
    assert await transport.thread.call_thread(lambda: future) == 7
    with pytest.raises(ZeroDivisionError):
        await transport.thread.call_thread(cast(Any, lambda: 1 / 0))


async def test_a_stop_stops_aiokafkas_consumer_and_fails_pending_calls(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport.thread, "_create_consumer", lambda loop: transport.kafka)
    before = asyncio.all_tasks()
    await transport.thread.start()
    assert asyncio.all_tasks() > before
    await transport.thread.stop()
    await asyncio.wait_for(transport.thread._shutdown.wait(), 1)
    await transport.thread.stop()
    assert transport.kafka.calls == ["start", "stop"], "once"
    assert not transport.thread._futures
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before, "no task is left"


async def test_a_crash_of_the_consumer_is_the_apps(transport: Transport) -> None:
    await transport.thread.crash(RuntimeError("a bug"))
    assert transport.thread.crashed
    assert str(transport.thread.crash_reason) == "a bug"


# The subscription


class FakeGroupMember:
    """The parts of aiokafka's consumer that a change of the subscription touches."""

    def __init__(self) -> None:
        self.assignment = {kafka_tp(LANE_TP)}
        self.subscription = SimpleNamespace(_topics=frozenset({LANE_TOPIC}), assignment=self.assignment)
        self.asked: list[frozenset[str]] = []
        self.rejoins = self.metadata_updates = 0
        self.answers = True

    @property
    def consumer(self) -> Any:
        return SimpleNamespace(_subscription=self, _client=self, _coordinator=self)

    async def set_topics(self, topics: frozenset[str]) -> None:
        self.asked.append(topics)
        if not self.answers:
            await asyncio.Event().wait()

    def check_errors(self) -> None: ...

    def force_metadata_update(self) -> None:
        self.metadata_updates += 1

    def request_rejoin(self) -> None:
        self.rejoins += 1


@pytest.fixture
async def member(transport: Transport) -> FakeGroupMember:
    made = FakeGroupMember()
    transport.thread._consumer = made.consumer
    app = transport.app
    app.topics.add(app.topic(LANE_TOPIC, key_serializer="raw", value_serializer="raw", acks=False))
    return made


async def test_a_changed_subscription_rejoins_once_and_keeps_the_assignment(
    transport: Transport, member: FakeGroupMember
) -> None:
    await transport.consumer.change_topics({OTHER_TOPIC}, ())
    assert member.subscription._topics == {LANE_TOPIC, OTHER_TOPIC}
    assert member.asked == [{LANE_TOPIC, OTHER_TOPIC}]
    assert member.subscription.assignment is member.assignment
    assert member.rejoins == 1
    await transport.consumer.change_topics((), {OTHER_TOPIC})
    assert member.subscription._topics == {LANE_TOPIC}
    await transport.consumer.change_topics({OTHER_TOPIC}, {LANE_TOPIC})
    assert member.subscription._topics == {OTHER_TOPIC}, "one leaves and one comes"


async def test_a_change_of_the_subscription_may_be_repeated(transport: Transport, member: FakeGroupMember) -> None:
    conductor: Any = transport.app.topics
    for _ in range(3):
        await transport.consumer.change_topics({OTHER_TOPIC}, ())
    assert member.subscription._topics == {LANE_TOPIC, OTHER_TOPIC}
    assert len(conductor._topics) == 2
    for _ in range(3):
        await transport.consumer.change_topics((), {OTHER_TOPIC, "never there"})
    assert member.subscription._topics == {LANE_TOPIC}


async def test_the_subscription_changes_also_if_metadata_does_not_come(
    transport: Transport, member: FakeGroupMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "METADATA_TIMEOUT_S", 0.001)
    member.answers = False
    await transport.consumer.change_topics({OTHER_TOPIC}, ())
    assert member.subscription._topics == {LANE_TOPIC, OTHER_TOPIC}
    assert member.rejoins == 1


# Fetched batches


async def test_lane_topics_leave_the_result_and_others_flow_on(transport: Transport) -> None:
    other = records(OTHER_TP, 5)
    transport.fetcher.ready = [{LANE_TP: records(LANE_TP, 1, 2), OTHER_TP: other}]
    assert await transport.fetch(LANE_TP, OTHER_TP) == {OTHER_TP: other}
    assert transport.intake.fed == [(kafka_tp(LANE_TP), [1, 2])]
    ((asked, timeout, most),) = transport.fetcher.asked
    assert (asked, timeout, most) == ({kafka_tp(LANE_TP), kafka_tp(OTHER_TP)}, 1.0, 100)
    assert all(type(tp) is TopicPartition for tp in asked)


async def test_records_of_a_lane_never_become_faust_messages(transport: Transport) -> None:
    transport.consumer._set_active_tps({LANE_TP, OTHER_TP})
    transport.consumer.resume_flow()
    transport.fetcher.ready = [{LANE_TP: records(LANE_TP, 1)}]
    messages = [message async for message in transport.consumer.getmany(1.0)]
    assert messages == []
    assert transport.intake.fed == [(kafka_tp(LANE_TP), [1])]
    assert not transport.consumer.unacked


async def test_a_full_partition_is_not_fetched(transport: Transport) -> None:
    transport.intake.full_tps = {kafka_tp(LANE_TP)}
    transport.fetcher.ready = [{}]
    await transport.fetch(LANE_TP, OTHER_TP)
    ((asked, timeout, _),) = transport.fetcher.asked
    assert (asked, timeout) == ({kafka_tp(OTHER_TP)}, WAIT_WHILE_FULL_S)
    assert transport.intake.waited_s == []


@pytest.mark.parametrize("active", [set(), {LANE_TP}])
async def test_an_empty_set_of_partitions_never_means_all(transport: Transport, active: set[TP]) -> None:
    transport.intake.full_tps = {kafka_tp(LANE_TP)}
    assert await transport.fetch(*active) == {}
    assert transport.fetcher.asked == []
    assert transport.intake.waited_s == [WAIT_WHILE_FULL_S]


def test_to_aiokafka_an_empty_set_means_all() -> None:
    assert "if partitions and tp not in partitions" in inspect.getsource(Fetcher.fetched_records)


async def test_the_fetched_partitions_do_not_change_during_a_fetch(transport: Transport) -> None:
    transport.consumer._set_active_tps({LANE_TP, OTHER_TP})
    active = transport.consumer._get_active_partitions()
    transport.fetcher.during = active.clear
    transport.fetcher.ready = [{}]
    await transport.consumer._getmany(active, 1.0)
    assert active == set()
    assert transport.fetcher.asked[0][0] == {kafka_tp(LANE_TP), kafka_tp(OTHER_TP)}


async def test_a_fetch_that_is_cancelled_may_have_taken_records_with_it(transport: Transport) -> None:
    asked = asyncio.Event()
    transport.fetcher.during = asked.set
    fetching = asyncio.create_task(transport.fetch(LANE_TP))
    await asked.wait()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert transport.intake.calls == ["suspect"]


async def test_so_may_one_that_fails(transport: Transport) -> None:
    transport.fetcher.ready = [RuntimeError("a bug")]
    with pytest.raises(RuntimeError):
        await transport.fetch(LANE_TP)
    assert transport.intake.calls == ["suspect"]


async def test_records_that_arrive_after_the_flow_was_stopped_are_marked_as_missed(transport: Transport) -> None:
    other = records(OTHER_TP, 5)
    transport.fetcher.ready = [{LANE_TP: records(LANE_TP, 1, 2), OTHER_TP: other}]
    transport.fetcher.during = transport.consumer.stop_flow
    assert await transport.fetch(LANE_TP, OTHER_TP) == {OTHER_TP: other}
    assert transport.intake.fed == []
    assert transport.intake.calls == ["suspect"]


async def test_nothing_is_fetched_while_the_flow_is_stopped(transport: Transport) -> None:
    transport.consumer.stop_flow()
    assert await transport.fetch(LANE_TP) == {}
    assert transport.fetcher.asked == []


# Revocation, acknowledgement, commit


async def test_the_lane_releases_before_faust_handles_the_revocation(transport: Transport) -> None:
    async def faust_handles(revoked: set[TP]) -> None:
        transport.intake.calls.append("faust")

    transport.consumer._on_partitions_revoked = faust_handles
    transport.consumer._set_active_tps({LANE_TP, OTHER_TP})
    await transport.consumer.on_partitions_revoked({LANE_TP, OTHER_TP})
    assert transport.intake.calls == [f"release {sorted([LANE_TOPIC, OTHER_TOPIC])}", "faust"]
    assert transport.consumer._active_partitions == set()


async def test_faust_neither_acks_nor_commits_lane_topics(transport: Transport) -> None:
    app, consumer = transport.app, transport.consumer
    app.topics.add(app.topic(LANE_TOPIC, key_serializer="raw", value_serializer="raw", acks=False))
    app.topics.add(app.topic(OTHER_TOPIC, key_serializer="raw", value_serializer="raw"))
    assert set(await cast(Any, app.topics)._update_indices()) == {LANE_TOPIC, OTHER_TOPIC}, "both are subscribed"
    assert not app.topics.acks_enabled_for(LANE_TOPIC)
    assert app.topics.acks_enabled_for(OTHER_TOPIC), "the others are acknowledged as ever"
    for tp in (LANE_TP, OTHER_TP):
        (record,) = records(tp, 0)
        consumer.ack(consumer._to_message(tp, record))
    assert dict(consumer._acked) == {OTHER_TP: [0]}
    del consumer._acked[OTHER_TP]
    assert not await consumer.commit()
    assert not await consumer.commit({LANE_TOPIC})
    assert transport.kafka.calls == []


async def test_lane_topics_have_no_stream_that_faust_could_miss(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[TP] = []
    monkeypatch.setattr(transport.thread, "verify_event_path", lambda now, tp: verified.append(tp))
    for tp in (LANE_TP, OTHER_TP):
        transport.consumer.verify_event_path(0.0, tp)
    assert verified == [OTHER_TP]


# Topics without READ rights


class FakeCoordinator:
    """A fake of aiokafka's group coordinator, which stores errors until they are read."""

    def __init__(self, error: KafkaError | None = None) -> None:
        self._pending_exception = error
        self.joins = 0

    def check_errors(self) -> None:
        error, self._pending_exception = self._pending_exception, None
        if error is not None:
            raise error

    def request_rejoin(self) -> None:
        self.joins += 1


def with_coordinator(transport: Transport, error: KafkaError | None = None) -> tuple[FakeCoordinator, list[None]]:
    coordinator, refreshed = FakeCoordinator(error), list[None]()
    kafka = cast(Any, transport.kafka)
    kafka._coordinator = coordinator
    kafka._client = SimpleNamespace(force_metadata_update=lambda: refreshed.append(None))
    return coordinator, refreshed


def test_a_coordinator_keeps_an_error_until_it_is_read() -> None:
    assert "self._pending_exception = None" in inspect.getsource(GroupCoordinator.check_errors)
    assert "self._pending_exception = exc" in inspect.getsource(GroupCoordinator._push_error_to_user)
    assert "self._subscription.assign_from_subscribed(" in inspect.getsource(GroupCoordinator._on_join_complete)


async def test_other_barred_topics_are_a_new_assignment(transport: Transport) -> None:
    coordinator, refreshed = with_coordinator(transport)
    excluded = [frozenset({OTHER_TOPIC}), frozenset({OTHER_TOPIC}), frozenset[str]()]
    joins = []
    for topics in excluded:
        transport.consumer.exclude(topics)
        joins.append(coordinator.joins)
    assert joins == [1, 1, 2]
    assert len(refreshed) == 2, "topics that were hidden may be visible now"


async def test_a_coordination_error_is_read_and_the_group_rejoined(transport: Transport) -> None:
    coordinator, _ = with_coordinator(transport, GroupAuthorizationFailedError("inferd"))
    transport.consumer.exclude(frozenset())
    assert (coordinator.joins, coordinator._pending_exception) == (1, None)


async def test_topics_can_be_barred_before_the_consumer_exists(transport: Transport) -> None:
    transport.thread._consumer = None
    transport.consumer.exclude(frozenset({OTHER_TOPIC}))
    assert transport.app.excluded == {OTHER_TOPIC}


async def test_barred_topics_are_not_fetched(transport: Transport) -> None:
    transport.app.excluded = frozenset({OTHER_TOPIC})
    transport.fetcher.ready = [{}]
    await transport.fetch(LANE_TP, OTHER_TP)
    assert transport.fetcher.asked[0][0] == {kafka_tp(LANE_TP)}


@pytest.mark.parametrize("error", [TopicAuthorizationFailedError(LANE_TOPIC), GroupAuthorizationFailedError("inferd")])
async def test_a_fetch_without_the_right_does_not_crash(
    transport: Transport, monkeypatch: pytest.MonkeyPatch, error: KafkaError
) -> None:
    monkeypatch.setattr(fetch_module, "DENIED_PAUSE_S", 0.0)
    denied: list[None] = []
    transport.app.denied = lambda: denied.append(None)
    transport.fetcher.ready = [error]
    assert await transport.fetch(LANE_TP) == {}
    assert len(denied) == 1
    assert transport.intake.calls == ["suspect"]


async def test_an_unreadable_log_is_reported_and_does_not_end_the_process(transport: Transport) -> None:
    transport.fetcher.ready = [UnreadableLogError(kafka_tp(LANE_TP), "the checksum is wrong")]
    assert await transport.fetch(LANE_TP, OTHER_TP) == {}
    reason = f"topic {LANE_TOPIC}, partition 0: the checksum is wrong"
    assert transport.intake.calls == ["suspect", f"unreadable {LANE_TOPIC}/0: {reason}"]


# The app


async def test_the_consumer_uses_read_committed_and_fausts_assignor(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, made, assigned = transport.app, {}, list[Any]()

    class Captured(AIOKafkaConsumer):
        def __init__(self, **options: Any) -> None:
            made.update(options)
            self._closed = True  # no warning: the coroutine is never started
            self._subscription: Any = SimpleNamespace(assign_from_subscribed=assigned.append)

    monkeypatch.setattr(aiokafka, "AIOKafkaConsumer", Captured)
    consumer = transport.thread._create_worker_consumer(app.transport)  # type: ignore[arg-type]
    assert consumer._isolation_level == "read_committed"
    assert consumer._fetch_max_wait_ms == FETCH_MAX_WAIT_MS
    assert isinstance(app.assignor, PartitionAssignor)
    assert made["partition_assignment_strategy"] == [app.assignor], "with no table, too"
    assert made["enable_auto_commit"] is False
    assert made["group_id"] == "inferd"
    assert made["bootstrap_servers"] == ["broker-1:9092", "broker-2:9093"]
    app.excluded = frozenset({OTHER_TOPIC})
    cast(Any, consumer)._subscription.assign_from_subscribed([kafka_tp(LANE_TP), kafka_tp(OTHER_TP)])
    assert assigned == [[kafka_tp(LANE_TP)]], "an unreadable topic is not assigned"


def test_the_fetcher_gets_the_settings_of_the_consumer() -> None:
    made = inspect.getsource(AIOKafkaConsumer.start)
    assert "isolation_level=self._isolation_level" in made
    assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in made


async def test_the_app_has_no_web_server_and_creates_no_topics(transport: Transport) -> None:
    conf = transport.app.conf
    assert (conf.web_enabled, conf.topic_allow_declare, conf.topic_disable_leader) == (False, False, True)
    services = list(transport.app.boot_strategy.server())
    assert not any("web" in type(service).__module__ for service in services), services
    assert transport.app.consumer is not None


async def test_a_faust_app_has_a_web_server_and_creates_topics_by_default() -> None:
    conf = faust.App("other", loop=asyncio.get_running_loop()).conf
    assert (conf.web_enabled, conf.topic_allow_declare) == (True, True)


async def test_the_app_follows_the_settings(tmp_path: Path) -> None:
    group = GroupSettings(
        group_id="g", instance_id="i", session_timeout_s=7, heartbeat_interval_s=0.5, rebalance_timeout_s=11,
        request_timeout_s=13, offset_reset="latest",
    )  # fmt: skip
    settings = replace(stream_settings(tmp_path), group=group, lane=LaneSettings(batch_rows_max=77))
    conf = create_app(settings).conf
    # The lane sets the start position; a position that retention has passed moves to the start of the log.
    assert (conf.id, conf.consumer_group_instance_id, conf.consumer_auto_offset_reset) == ("g", "i", "earliest")
    assert (conf.broker_session_timeout, conf.broker_heartbeat_interval) == (7, 0.5)
    assert (conf.broker_rebalance_timeout, conf.broker_request_timeout, conf.broker_max_poll_records) == (11, 13, 77)
    assert conf.broker_client_id == "inferd-worker-1"
    assert conf.datadir == tmp_path / "faust"
    assert [str(url) for url in conf.broker] == ["kafka://broker-1:9092", "kafka://broker-2:9093"]
    assert not conf.stream_wait_empty, "wait_empty has no deadline"


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
async def test_credentials_are_those_of_the_connection(tmp_path: Path, protocol: Any) -> None:
    connection = KafkaConnection(
        security_protocol=protocol, sasl_mechanism="SCRAM-SHA-512", sasl_username="u", sasl_password="p"
    )
    app = create_app(replace(stream_settings(tmp_path), connection=connection))
    options = driver.credentials_to_aiokafka_auth(app.conf.broker_credentials, None)
    assert options["security_protocol"] == protocol
    assert (options["sasl_mechanism"], options["sasl_plain_username"], options["sasl_plain_password"]) == (
        "SCRAM-SHA-512", "u", "p",
    )  # fmt: skip
    assert (options["ssl_context"] is not None) == (protocol == "SASL_SSL")


HOSTILE = {
    "BROKER_URL": "kafka://elsewhere:1",
    "BROKER_SESSION_TIMEOUT": "33",
    "BROKER_CLIENT_ID": "somebody",
    "CONSUMER_AUTO_OFFSET_RESET": "latest",
    "TABLE_STANDBY_REPLICAS": "0",
    "TOPIC_ALLOW_DECLARE": "1",
    "PROCESSING_GUARANTEE": "exactly_once",
    "APP_WEB_ENABLED": "1",
    "APP_DATADIR": "/tmp/elsewhere",
    "APP_ENV_PREFIX": "OTHER",
    "OTHER_BROKER_URL": "kafka://elsewhere:2",
    "FAUST_DATADIR": "/tmp/elsewhere",
    "F_WORKDIR": "/tmp/elsewhere",
    "INFERD_GROUP_ID": "others",
    "INFERD_BROKER": "elsewhere:3",
}
SHOW = """
import asyncio
from pathlib import Path
from inferd.schemas.connection import KafkaConnection
from inferd.streams.faust_app import create_app
from inferd.streams.settings import StreamSettings
async def show():
    conf = create_app(StreamSettings(KafkaConnection(), "worker-1", Path("/tmp/ours"))).conf
    for name in sorted({*conf.SETTINGS} - {"reply_to"}):
        value = getattr(conf, name, None)
        print(name, value if isinstance(value, (str, int, float, list, Path)) else type(value).__name__)
asyncio.run(show())
"""


def shown(environment: dict[str, str]) -> list[str]:
    ours = {name: value for name, value in os.environ.items() if name not in HOSTILE}
    output = subprocess.run([sys.executable, "-c", SHOW], env={**ours, **environment}, capture_output=True, check=True)
    return output.stdout.decode().splitlines()


def test_the_environment_does_not_change_the_app() -> None:
    quiet = shown({})
    assert "web_enabled False" in quiet
    assert "table_standby_replicas 1" in quiet
    assert shown(HOSTILE) == quiet

"""Takeovers that are cancelled at any await, and takeovers of topics that change: no partition stays open that is not
owned."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from aiokafka import TopicPartition
from structlog.testing import capture_logs

from inferd.schemas.connection import KafkaConnection
from inferd.streams.faust_app import create_app
from inferd.streams.kafka import producer as publish
from inferd.streams.lane import exactly_once
from inferd.streams.lane.at_least_once import AtLeastOnce
from inferd.streams.lane.exactly_once import ExactlyOnce
from inferd.streams.settings import StreamSettings, TopicSettings
from inferd.streams.state.stores import MemoryStore
from inferd.streams.state.tables import LaneTable, make_table
from inferd.streams.telemetry.measure import LaneMeasures
from tests.fixtures.lane import DEAD_LETTERS, REQUESTS, RESULTS, Bench, make_guarantee, request, tp

# Cancelled at every await


class Steps:
    """Cancels `victim` as the k-th of its steps begins, or after it: every await of a takeover is a step."""

    def __init__(self, k: int) -> None:
        self.left = k
        self.cancel: Callable[[], Any] = lambda: None

    async def step(self, work: Callable[[], Awaitable[Any]]) -> Any:
        self._count()
        await asyncio.sleep(0)
        result = await work()
        self._count()
        await asyncio.sleep(0)
        return result

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.cancel()

    def through(self, target: Any, name: str) -> None:
        inner = getattr(target, name)

        async def stepped(*args: Any, **options: Any) -> Any:
            return await self.step(lambda: inner(*args, **options))

        setattr(target, name, stepped)


def steps_of(bench: Bench, k: int) -> Steps:
    steps = Steps(k)
    consumer = bench.consumer
    for name in ("committed", "beginning_offsets", "end_offsets"):
        steps.through(consumer, name)
    for target, name in ((bench.topics, "refresh"), (bench.group, "seek"), (bench.tenant, "opened")):
        steps.through(target, name)
    return steps


class OpenPartitions:
    """The partitions that are open in the processor."""

    def __init__(self, bench: Bench) -> None:
        self.numbers: set[int] = set()
        opened, closed = bench.tenant.opened, bench.tenant.closed

        async def note_opened(number: int) -> None:
            self.numbers.add(number)
            await opened(number)

        def note_closed(number: int) -> None:
            self.numbers.discard(number)
            closed(number)

        bench.tenant.opened, bench.tenant.closed = note_opened, note_closed  # type: ignore[method-assign]


STEPS = range(1, 40)


@pytest.mark.parametrize("bench", [AtLeastOnce, ExactlyOnce], indirect=True)
@pytest.mark.parametrize("k", STEPS)
async def test_a_takeover_cancelled_by_a_revocation_leaves_no_partition_open(bench: Bench, k: int) -> None:
    processors, steps = OpenPartitions(bench), steps_of(bench, k)
    release = asyncio.Event()
    steps.cancel = release.set
    acquiring = asyncio.create_task(bench.own(0, 1, 2))
    waiting = asyncio.create_task(release.wait())
    await asyncio.wait({acquiring, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    bench.group.generation += 1
    await bench.lane.release({tp(0), tp(1), tp(2)})
    await acquiring
    assert (processors.numbers, bench.lane.partitions) == (set(), {})
    await bench.own(1)
    await bench.until(lambda: bench.lane.settled)
    assert (processors.numbers, set(bench.lane.partitions)) == ({1}, {tp(1)})
    await bench.lane.close()
    await bench.until(lambda: bench.broker.producers_closed == bench.broker.producers_opened)


async def test_the_steps_reach_past_the_end_of_a_takeover(bench: Bench) -> None:
    steps = steps_of(bench, STEPS[-1])
    await bench.own(0, 1, 2)
    assert steps.left > 0, "or the last step is never cancelled"


async def test_a_processor_may_take_longer_to_open_than_an_attempt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads a table, which may have millions of entries: each attempt would start again."""
    for faults in bench.lane._context.faults.values():
        monkeypatch.setattr(faults, "_attempt_timeout_s", 0.1)
    read, opened = asyncio.Event(), list[int]()

    async def open_slowly(number: int) -> None:
        opened.append(number)
        await read.wait()

    bench.tenant.opened = open_slowly  # type: ignore[method-assign]
    acquiring = asyncio.create_task(bench.own(0))
    asyncio.get_running_loop().call_later(0.4, read.set)
    await acquiring
    await bench.until(lambda: bench.lane.settled)
    assert (opened, set(bench.lane.partitions)) == ([0], {tp(0)})


# Producers


class SlowProducer:
    """A fake aiokafka producer, each of whose awaits may be cancelled."""

    made: ClassVar[list[SlowProducer]] = []

    def __init__(self, **_: Any) -> None:
        self.client = self._sender = self
        self.started = self.stopped = False
        SlowProducer.made.append(self)

    async def _send_produce_req(self, *_: Any) -> None:
        """Sends nothing."""

    async def start(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        self.started = True

    async def stop(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        self.stopped = True


@pytest.fixture
def producers(monkeypatch: pytest.MonkeyPatch) -> list[SlowProducer]:
    SlowProducer.made = []
    monkeypatch.setattr(publish, "AIOKafkaProducer", SlowProducer)
    return SlowProducer.made


async def cancelled_after(turns: int, task: asyncio.Task[Any]) -> None:
    """Cancels a task after this many iterations of the loop, and again in each of the next."""
    for turn in range(turns + 3):
        await asyncio.sleep(0)
        if turn >= turns:
            task.cancel()
    await asyncio.wait({task}, timeout=20)


async def until_stopped(producers: list[SlowProducer]) -> None:
    async with asyncio.timeout(20):
        while not all(producer.stopped for producer in producers):  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.mark.parametrize("turns", range(14))
async def test_a_producer_whose_start_is_cancelled_is_closed(producers: list[SlowProducer], turns: int) -> None:
    task = asyncio.create_task(publish.open_producer({}, 20.0))
    await cancelled_after(turns, task)
    if not task.cancelled():
        assert task.result().started  # type: ignore[attr-defined]
        await publish.close_producer(task.result())
    await until_stopped(producers)


@pytest.mark.parametrize("turns", range(0, 24, 2))
@pytest.mark.parametrize("guarantee", [AtLeastOnce, ExactlyOnce])
async def test_a_cancelled_fence_leaves_no_producer_open(
    producers: list[SlowProducer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, turns: int, guarantee: Any
) -> None:
    async def no_endings(*_: Any) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {}

    monkeypatch.setattr(exactly_once, "last_transaction_results", no_endings)
    settings = StreamSettings(KafkaConnection(), "w", tmp_path)
    under_test = make_guarantee(guarantee, settings, LaneMeasures())
    outputs = {tp(number): {TopicPartition(RESULTS, number)} for number in range(3)}
    await cancelled_after(turns, asyncio.create_task(under_test.fence(outputs)))
    await under_test.fence(outputs)
    await under_test.close()
    await until_stopped(producers)


# Tables


class GatedStore(MemoryStore):
    """Opens when the gate opens; reports if two are open at once."""

    def __init__(self, opened: set[int], number: int) -> None:
        super().__init__()
        assert number not in opened, "the message of RocksDB's lock"
        opened.add(number)
        self._opened, self._number = opened, number

    def close(self) -> None:
        self._opened.discard(self._number)


@pytest.fixture
async def table(tmp_path: Path) -> LaneTable:
    settings = StreamSettings(KafkaConnection(), "w1", tmp_path, topics=TopicSettings(partitions=4))
    return make_table(create_app(settings), settings, "default", "predictions", None)


async def test_stores_are_opened_without_blocking_the_event_loop(table: LaneTable) -> None:
    loop, gate = threading.get_ident(), threading.Event()

    def open_store(_: int) -> MemoryStore:
        assert threading.get_ident() != loop
        assert gate.wait(20)
        return MemoryStore()

    table.open_store = open_store
    opening = asyncio.create_task(table.retain({0, 1, 2, 3}))
    await asyncio.sleep(0)
    assert not opening.done(), "and the event loop continues meanwhile"
    gate.set()
    assert [partition.number for partition in await opening] == [0, 1, 2, 3]


async def test_a_takeover_that_is_cancelled_leaves_stores_to_the_next_one(table: LaneTable) -> None:
    opened, gate = set[int](), threading.Event()

    def open_store(number: int) -> MemoryStore:
        assert gate.wait(20)
        return GatedStore(opened, number)

    table.open_store = open_store
    first = asyncio.create_task(table.retain({0, 1}))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    second = asyncio.create_task(table.retain({1, 2}))
    await asyncio.sleep(0)
    gate.set()
    assert [partition.number for partition in await second] == [1, 2]
    assert (opened, set(table.owned), table.opening) == ({1, 2}, {1, 2}, {})
    await table.close()
    assert opened == set()


async def test_opening_a_store_is_retried(table: LaneTable) -> None:
    tries: list[int] = []

    def open_store(number: int) -> MemoryStore:
        tries.append(number)
        if len(tries) == 1:
            raise OSError("disk full")
        return MemoryStore()

    table.open_store = open_store
    with pytest.raises(OSError, match="disk full"):
        await table.retain({0})
    assert [partition.number for partition in await table.retain({0})] == [0]


# Topics that change


async def until_open(bench: Bench, *numbers: int) -> None:
    """Checks topics, as the app does every second, until exactly these partitions are open."""

    def checked() -> bool:
        bench.lane.check_topics()
        return bench.lane.settled and set(bench.lane.partitions) == {tp(number) for number in numbers}

    await bench.until(checked)


@pytest.mark.parametrize("bench", [AtLeastOnce, ExactlyOnce], indirect=True)
async def test_partitions_without_an_output_partition_are_named_and_the_others_served(bench: Bench) -> None:
    bench.topics.partitions = {REQUESTS: 4, RESULTS: 2, DEAD_LETTERS: 3}
    await bench.own(0, 1, 2, 3)
    await until_open(bench, 0, 1)
    assert bench.lane.unserved == [
        f"partitions 2 and 3 of {REQUESTS} are not served:"
        f" they need partitions of {DEAD_LETTERS} and {RESULTS} that do not exist"
    ]
    bench.broker.acknowledges = True
    bench.lane.feed(tp(1), [request(0, 1)])
    await bench.until(lambda: len(bench.results()) == 1)
    bench.topics.partitions = {}
    await until_open(bench, 0, 1, 2, 3)
    assert bench.lane.unserved == []


async def test_a_deleted_topic_closes_dependent_partitions_until_it_is_recreated(bench: Bench) -> None:
    processors = OpenPartitions(bench)
    await bench.own(0)
    bench.topics.partitions = {RESULTS: 0}
    await until_open(bench)
    assert processors.numbers == set()
    assert bench.lane.unserved == [
        f"partition 0 of {REQUESTS} is not served: it needs partitions of {RESULTS} that do not exist"
    ]
    bench.topics.partitions = {}
    await until_open(bench, 0)
    assert processors.numbers == {0}


@pytest.mark.parametrize("bench", [AtLeastOnce, ExactlyOnce], indirect=True)
async def test_requests_that_were_created_again_are_read_from_their_beginning(bench: Bench) -> None:
    bench.topics.ids, bench.broker.acknowledges = {REQUESTS: "old"}, True
    await bench.own(0)
    bench.lane.feed(tp(0), [request(offset) for offset in range(5)])
    await bench.until(lambda: len(bench.results()) == 5)
    await bench.until(lambda: bench.lane.partitions[tp(0)].acked == 5)
    bench.consumer.committed_offsets, bench.consumer.notes = {tp(0): 5}, {tp(0): "topic-id=old"}
    bench.topics.ids, bench.consumer.end = {REQUESTS: "new"}, 3
    with capture_logs() as logs:
        bench.lane.check_topics()
        await bench.until(lambda: bench.lane.partitions[tp(0)].topic_id == "new")
    assert bench.group.seeks[-1] == {tp(0): 0}
    assert "offset_of_a_deleted_topic" in [entry["event"] for entry in logs]
    bench.lane.feed(tp(0), [request(0)])
    await bench.until(lambda: len(bench.results()) == 6)


async def test_a_recreated_output_topic_gets_new_producers_and_no_repeats(bench: Bench) -> None:
    bench.topics.ids, bench.broker.acknowledges = {RESULTS: "old"}, True
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0)])
    await bench.until(lambda: bench.lane.partitions[tp(0)].acked == 1)
    bench.topics.ids = {RESULTS: "new"}
    bench.lane.check_topics()
    await bench.until(lambda: bench.lane.partitions[tp(0)].topic_ids[RESULTS] == "new")
    assert (bench.broker.producers_opened, bench.group.seeks[-1]) == (2, {tp(0): 1})


async def test_offsets_are_committed_with_the_topic_they_belong_to(bench: Bench) -> None:
    bench.topics.ids, bench.broker.acknowledges = {REQUESTS: "abc"}, True
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0)])
    await bench.until(lambda: bench.consumer.notes == {tp(0): "topic-id=abc"})

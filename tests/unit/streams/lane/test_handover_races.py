"""A handover that is killed or paused at each await, the latter while another handover or an owner runs.

Each id counts its messages in its state. Whatever happens, an id has one state, and no message is lost or repeated.
"""

from __future__ import annotations

import itertools
import types
from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from inferd.schemas.connection import KafkaConnection
from inferd.streams.kafka import UNCHECKED
from inferd.streams.kafka.partitioner import partition_of_key
from inferd.streams.lane import handover as module
from inferd.streams.lane.handover import Handover, KeyedTable, Move
from inferd.streams.settings import StreamSettings, TopicSettings

BASE, GROWN = 2, 8
"""Doubled twice at once: a state may be in two older partitions of its new one."""
KEYS = [b"id-%d" % n for n in range(24)]
SETTINGS = StreamSettings(KafkaConnection(), "w", Path("unused"), topics=TopicSettings(partitions=BASE))
Steps = Coroutine[Any, Any, None]
STEPS_MAX = 40
"""More than a handover has awaits."""


class FencedError(Exception):
    """A newer producer has the transactional id."""


@types.coroutine
def pause() -> Generator[None]:
    """Where another process may run, or this one is killed."""
    yield


class Broker:
    """Changelogs, committed offsets, and the epoch of each transactional id."""

    def __init__(self) -> None:
        self.states = defaultdict[int, dict[bytes, int]](dict)
        self.offsets = dict[TopicPartition, int]()
        self.epochs = defaultdict[int, int](int)

    def fence(self, number: int) -> int:
        self.epochs[number] += 1
        return self.epochs[number]

    def check(self, number: int, epoch: int | None) -> None:
        if epoch != self.epochs[number]:
            raise FencedError


@dataclass
class Client:
    """What a handover uses of Kafka; a transaction is atomic, and fails if its producer is fenced."""

    broker: Broker
    epochs: dict[int, int] = field(default_factory=dict)

    async def fence(self, outputs: Mapping[TopicPartition, Any]) -> None:
        await pause()
        self.epochs |= {tp.partition: self.broker.fence(tp.partition) for tp in outputs}
        await pause()

    async def release(self, tps: Collection[TopicPartition]) -> None:
        for tp in tps:
            self.epochs.pop(tp.partition, None)

    async def write(
        self, tp: TopicPartition, records: Mapping[tuple[str, int], Sequence[Any]], offsets: Mapping[Any, Any]
    ) -> None:
        await pause()
        self.broker.check(tp.partition, self.epochs[tp.partition])
        for (_, number), each in records.items():
            for key, value, _ in each:
                if value is None:
                    del self.broker.states[number][key]
                else:
                    assert key not in self.broker.states[number], "a state is written over another"
                    self.broker.states[number][key] = int(value)
        self.broker.offsets |= {each: offset.offset for each, offset in offsets.items()}
        await pause()

    def offset_of(self, _tp: TopicPartition, offset: int, _topic_id: str) -> OffsetAndMetadata:
        return OffsetAndMetadata(offset, "")

    async def run(self, owned: Any) -> None:
        """Restores a table."""
        await pause()
        ((_, partition),) = owned
        found = self.broker.states[partition.number]
        partition.store.write([(key, b"%d" % count) for key, count in found.items()], 1)
        await pause()


@dataclass
class Owner:
    """The owner of a partition: its table as it was restored, and the number of partitions that it knows."""

    number: int
    epoch: int
    table: dict[bytes, int]
    known: int


class World:
    """Partitions with messages and states, which were just added, and their owners of before."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.log = defaultdict[int, list[bytes]](list)
        self.sent = dict.fromkeys(KEYS, 1)
        for key in KEYS:
            self.broker.states[partition_of_key(key, BASE)][key] = 1
        self.owners = dict[int, Owner]()
        for number in range(BASE):
            self.take_over(number, BASE)

    def handover(self, number: int) -> Steps:
        """What a worker does that is assigned a new partition."""
        table: Any = SimpleNamespace(name="t", changelog="changelog")
        keyed = KeyedTable(table, ("jobs", "job-results"), lambda _k, value, _o, _n: Move(value), lambda: BASE)
        topics: Any = SimpleNamespace(id_of=lambda _topic: "")
        made = Handover(SETTINGS, topics, [keyed], UNCHECKED)
        made._once = made._restore = Client(self.broker)  # type: ignore[assignment]
        return made.run([TopicPartition(topic, number) for topic in keyed.topics], lambda _tp: [], None)  # type: ignore[arg-type]

    async def committed(self, _consumer: Any, tps: Any, _topics: Any) -> set[TopicPartition]:
        await pause()
        return set(tps) & self.broker.offsets.keys()

    def filled(self, number: int) -> bool:
        return number < BASE or TopicPartition("jobs", number) in self.broker.offsets

    def take_over(self, number: int, known: int) -> None:
        """The owner before it is not told."""
        self.owners[number] = Owner(number, self.broker.fence(number), dict(self.broker.states[number]), known)

    def send(self, key: bytes, count: int) -> None:
        """By a producer that knows of so many partitions."""
        self.log[partition_of_key(key, count)].append(key)
        self.sent[key] += 1

    def take_all(self) -> None:
        """Owners take all messages; one that is fenced writes nothing and takes its partition over again."""
        while any(self.log[number] for number in self.owners):
            for number in list(self.owners):
                while self.log[number]:
                    self._take(number)

    def _take(self, number: int) -> None:
        owner = self.owners[number]
        if owner.epoch != self.broker.epochs[number]:
            self.take_over(number, GROWN)
            return
        key = self.log[number].pop(0)
        home = partition_of_key(key, owner.known)
        if home != number and key not in owner.table:
            self.log[home].append(key)
            return
        self.broker.states[number][key] = owner.table[key] = owner.table.get(key, 0) + 1

    def check(self) -> None:
        """Each id has one state."""
        holders = [key for states in self.broker.states.values() for key in states]
        assert len(holders) == len(set(holders))

    def check_all(self) -> None:
        """After all handovers: each state is where its id belongs, and has counted each message once."""
        for number in range(BASE, GROWN):
            advance(self.handover(number))
            assert self.filled(number)
            self.take_over(number, GROWN)
        self.take_all()
        self.check()
        for number, states in self.broker.states.items():
            assert {partition_of_key(key, GROWN) for key in states} <= {number}, f"states stayed in {number}"
        assert {key: n for states in self.broker.states.values() for key, n in states.items()} == self.sent


def advance(steps: Steps, count: int = STEPS_MAX) -> bool:
    """Runs a coroutine up to its `count`-th await; returns whether it has not ended by then."""
    try:
        for _ in range(count):
            steps.send(None)
    except (StopIteration, FencedError):
        return False
    return True


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Callable[[], World]:
    def make() -> World:
        made = World()
        monkeypatch.setattr(module, "committed", made.committed)
        return made

    monkeypatch.setattr(module, "TRANSACTION_BYTES", 300)
    monkeypatch.setattr(module, "log", SimpleNamespace(info=lambda *_, **__: None))
    return make


NEW = range(BASE, GROWN)


@pytest.mark.parametrize("number", NEW)
def test_a_handover_may_be_killed_at_any_await(world: Callable[[], World], number: int) -> None:
    for stop in range(STEPS_MAX):
        made = world()
        steps = made.handover(number)
        goes_on = advance(steps, stop)
        steps.close()
        made.check()
        made.check_all()
        if not goes_on:
            return
    pytest.fail("it does not end")


@pytest.mark.parametrize(("first", "second"), list(itertools.product(NEW, NEW)))
def test_a_handover_may_be_overtaken_by_another_at_any_await(
    world: Callable[[], World], first: int, second: int
) -> None:
    """Both are of the same partition, which another worker got meanwhile, or of two partitions."""
    for stop in range(STEPS_MAX):
        made = world()
        steps, other = made.handover(first), made.handover(second)
        goes_on = advance(steps, stop)
        assert not advance(other)
        assert made.filled(second)
        if goes_on:
            assert not advance(steps)
        made.check()
        made.check_all()
        if not goes_on:
            return
    pytest.fail("it does not end")


@pytest.mark.parametrize("number", NEW)
@pytest.mark.parametrize("of", [BASE, GROWN])
def test_owners_of_before_may_take_messages_at_any_await(world: Callable[[], World], number: int, of: int) -> None:
    """Of old ids and from producers that know `of` partitions; an owner that is fenced takes over again, and fences."""
    for stop in range(STEPS_MAX):
        made = world()
        steps = made.handover(number)
        goes_on = advance(steps, stop)
        for key in KEYS:
            made.send(key, of)
        made.take_all()
        if goes_on:
            advance(steps)
        made.check()
        made.check_all()
        if not goes_on:
            return
    pytest.fail("it does not end")
